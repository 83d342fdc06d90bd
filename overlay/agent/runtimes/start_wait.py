"""Wait, for a bounded time, until the container that a target names runs.

For all kinds of targets alike, with events or without: the target is resolved again and again, and
no more often than a small share of the time that it takes (10 ms for Docker). Does not: attach.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

from overlay import limits
from overlay.agent.runtimes.targets import THIS_HOST, TargetSources, resolve_target
from overlay.errors import NotFoundError, NotRunningError, OverlayError, UsageError
from overlay.target_kinds import kind_of


@dataclass(frozen=True, slots=True)
class StartState:
    """Whether a target's container runs: then `text` names it for certain, else `why` not."""

    text: str
    runs: bool
    why: str = ""


async def wait_until_running(
    target: str, wait_s: float, sources: TargetSources = THIS_HOST
) -> StartState:
    """Return once the container of a target runs, or after that time.

    One that does not exist may still be created. Raises UsageError for a target that cannot come
    to run, and the errors of `resolve_target` other than those of a container that does not run.
    """
    kind = kind_of(target)
    if kind is not None and kind.word == "pid":
        raise UsageError(
            f"{target} cannot be waited for",
            why="a process that will start later has no id yet",
            hint="Name its container, or its network namespace, instead",
            field="target",
        )
    deadline_s = time.monotonic() + wait_s
    while True:
        started_s = time.monotonic()
        state = await asyncio.to_thread(_state, target, sources)
        now_s = time.monotonic()
        if state.runs or now_s >= deadline_s:
            return state
        pause_s = max(limits.START_POLL_S, (now_s - started_s) * limits.START_POLL_SHARE)
        await asyncio.sleep(min(pause_s, deadline_s - now_s))


def _state(target: str, sources: TargetSources) -> StartState:
    try:
        found = resolve_target(target, sources)
    except (NotFoundError, NotRunningError) as error:
        return StartState(target, runs=False, why=_reason(error))
    found.close()
    return StartState(found.text, runs=True)


def _reason(error: OverlayError) -> str:
    return f"{error.what} ({error.why})" if error.why else error.what
