"""Apply a declared state: plan against what is present, check all of it, then carry it out.

Owns: that nothing changes before every step was checked, and how far a plan was carried out.
Does not: know a kind of object (`object_kind`), or a file.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from overlay.agent.apply.object_kind import ObjectKind
from overlay.agent.process.event_log import EventLog
from overlay.core.apply import plan as planning
from overlay.core.apply.items import DeclaredItem
from overlay.core.apply.plan import PlannedStep
from overlay.errors import OverlayError

Permission: TypeAlias = Callable[[Sequence[PlannedStep]], Awaitable[None]]


@dataclass(slots=True)
class ApplyOutcome:
    """A plan, how many of its steps are done, and the error that ended it."""

    steps: list[PlannedStep]
    done: int = 0
    failure: OverlayError | None = field(default=None)


class ApplyService:
    """Makes the cluster's objects what a file declares."""

    def __init__(self, kinds: Mapping[str, ObjectKind], event_log: EventLog) -> None:
        self._kinds = kinds
        self._event_log = event_log
        self._lock = asyncio.Lock()  # of two files at once, the second sees what the first did

    def present(self, owner: str | None = None) -> list[DeclaredItem]:
        """Return the objects that exist, or those of one owner, in the order of a file."""
        found = [item for kind in self._kinds.values() for item in kind.present()]
        order = list(self._kinds)
        chosen = [item for item in found if owner is None or item.owner == owner]
        return sorted(chosen, key=lambda item: (order.index(item.kind), item.key))

    async def plan(
        self, declared: Sequence[DeclaredItem], owner: str, *, prune: bool
    ) -> list[PlannedStep]:
        """Return the steps to a declared state; raises the error of the first that would fail."""
        steps = planning.plan(declared, self.present(), owner=owner, prune=prune)
        for step in steps:
            try:
                await self._kinds[step.item.kind].check(step)
            except OverlayError as error:
                raise _of_item(error, step.item) from error
        return steps

    async def apply(
        self,
        declared: Sequence[DeclaredItem],
        owner: str,
        require_allowed: Permission,
        *,
        prune: bool,
        dry_run: bool = False,
    ) -> ApplyOutcome:
        """Plan, check, and carry the steps out until one fails; raises the plan's errors.

        `require_allowed` raises ForbiddenError for steps that the caller may not have done.
        """
        async with self._lock:
            outcome = ApplyOutcome(await self.plan(declared, owner, prune=prune))
            await require_allowed(outcome.steps)
            for step in () if dry_run else outcome.steps:
                try:
                    await self._kinds[step.item.kind].carry_out(step)
                except OverlayError as error:
                    outcome.failure = _of_item(error, step.item)
                    break
                outcome.done += 1
            if outcome.done:
                text = f"{outcome.done} of {len(outcome.steps)} changes of a file are made"
                self._event_log.record("apply", f"{text} (owner {owner})" if owner else text)
            return outcome


def _of_item(error: OverlayError, item: DeclaredItem) -> OverlayError:
    """Return an error that says which object of the file it is about."""
    path = ".".join(filter(None, (item.path, error.field)))
    what = error.what if item.title in error.what else f"{item.title}: {error.what}"
    return type(error)(what, why=error.why, hint=error.hint, field=path)
