"""The handler that tells whether a target's container runs, at once or when it starts."""

from __future__ import annotations

from overlay.agent.api.http import privileges
from overlay.agent.api.http.caller import ApiCaller
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema.endpoints import TargetQuery, TargetResponse
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.runtimes.start_wait import wait_until_running


async def target(query: TargetQuery, caller: ApiCaller) -> TargetResponse:
    """GET /v1/target?target=TARGET[&wait_s=SECONDS]."""
    privileges.require_target(caller, query.target)
    state = await wait_until_running(query.target, query.wait_s)
    return {"target": state.text, "runs": state.runs, "why": state.why}


def register(server: ApiServer, _agent: AgentLifecycle) -> None:
    """Register the route of this module."""
    server.route(
        "GET",
        "/v1/target",
        "target",
        target,
        query=TargetQuery,
        response=TargetResponse,
        needs_caller=True,
    )
