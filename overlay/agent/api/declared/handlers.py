"""Handlers for declared state: `apply` and `export`."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from overlay.agent.api.declared.exported_file import exported
from overlay.agent.api.declared.file_reader import read_file
from overlay.agent.api.declared.permissions import require_allowed
from overlay.agent.api.declared.schema import (
    ApplyRequest,
    ApplyResponse,
    ExportFilter,
    ExportResponse,
    StepResponse,
)
from overlay.agent.api.http import privileges
from overlay.agent.api.http.caller import ApiCaller
from overlay.agent.api.http.server import ApiServer
from overlay.agent.apply.network_items import spec_of
from overlay.agent.components import Components
from overlay.agent.lifecycle import AgentLifecycle
from overlay.core.apply.items import NETWORK
from overlay.core.apply.plan import PlannedStep, text
from overlay.errors import NotFoundError, TimedOutError, UsageError
from overlay.kernel.host import macvlan
from overlay.kernel.host.underlay_segment import is_on_underlay


class DeclaredHandlers:
    """The handlers for declared state, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def apply(self, request: ApplyRequest, caller: ApiCaller) -> ApplyResponse:
        """POST /v1/apply."""
        components = self._agent.require_components()
        found = read_file(request.file, components)
        if request.prune and not found.owner:
            raise UsageError(
                "prune needs an owner",
                why="only what a file with the same owner has made before is removed",
                hint='Add a line to the file: owner = "NAME"',
                field="owner",
            )

        async def require_all_allowed(steps: Sequence[PlannedStep]) -> None:
            require_allowed(caller, steps)
            await self._require_parents(caller, steps, components)

        outcome = await components.apply.apply(
            found.items,
            found.owner,
            require_all_allowed,
            prune=request.prune,
            dry_run=request.dry_run,
        )
        return {
            "owner": found.owner or None,
            "dry_run": request.dry_run,
            "changes": [
                _step(step, done=number < outcome.done) for number, step in enumerate(outcome.steps)
            ],
            "failure": None if outcome.failure is None else outcome.failure.body(),
        }

    async def _require_parents(
        self, caller: ApiCaller, steps: Iterable[PlannedStep], components: Components
    ) -> None:
        """Raise ForbiddenError, or an error of the parent interface of a network to create."""
        for step in steps:
            if step.item.kind != NETWORK or step.action != "create":
                continue
            spec = spec_of(step.item)
            if spec.parent:
                kernel, own = self._agent.kernel, components.forwarding.underlay.interface
                is_underlay = await kernel.call(is_on_underlay, spec.parent, own)
                privileges.require_parent(caller, spec.parent, is_underlay=is_underlay)
                await kernel.call(macvlan.require_driver, spec.driver, spec.parent)

    async def export(self, query: ExportFilter) -> ExportResponse:
        """GET /v1/export[?owner=NAME]."""
        present = self._agent.require_components().apply.present(query.owner)
        return exported(present, query.owner)


def _step(step: PlannedStep, *, done: bool) -> StepResponse:
    return {
        "action": step.action,
        "kind": step.item.kind,
        "name": "/".join(step.item.identity),
        "changes": [
            {"setting": each.setting, "before": text(each.before), "after": text(each.after)}
            for each in step.changes
        ],
        "done": done,
    }


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the routes of this module."""
    handlers = DeclaredHandlers(agent)
    server.route(
        "POST",
        "/v1/apply",
        "apply",
        handlers.apply,
        request=ApplyRequest,
        response=ApplyResponse,
        needs_caller=True,
        errors_raised=(NotFoundError, TimedOutError),
    )
    server.route(
        "GET",
        "/v1/export",
        "export",
        handlers.export,
        query=ExportFilter,
        response=ExportResponse,
    )
