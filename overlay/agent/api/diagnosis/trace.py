"""GET /v1/trace: what packets between two containers meet, on both hosts."""

from __future__ import annotations

from overlay.agent.api.diagnosis.ping import party
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema import diagnosis as schema
from overlay.agent.lifecycle import AgentLifecycle
from overlay.core.protocol.trace import Finding, Outcome, Phase, Step
from overlay.core.trace.verdict import Leg

_STEPS = {int(step): step.name.lower().replace("_", "-") for step in Step}
_OUTCOMES: dict[Outcome, schema.OutcomeName] = {
    Outcome.OK: "ok",
    Outcome.WARN: "warn",
    Outcome.DROP: "drop",
    Outcome.UNKNOWN: "unknown",
}


async def trace(agent: AgentLifecycle, query: schema.TraceQuery) -> schema.TraceResponse:
    """Return the way from one container to another, explained by the agents of both hosts."""
    components = agent.require_components()
    finder = components.diagnosis.parties
    sources = finder.anywhere(query.source, query.network)
    targets = finder.targets(query.target, query.network)
    pair = finder.pair(sources, targets, None if query.family is None else int(query.family))
    found = await components.diagnosis.trace_service.trace(pair, query.protocol, query.port or 0)
    return {
        "network": pair.network.name,
        "source": party(components, pair.source, pair.source_ip),
        "target": party(components, pair.target, pair.target_ip),
        "protocol": query.protocol,
        "port": query.port,
        "legs": [_leg(each) for each in found.legs],
        "verdict": {
            "outcome": _OUTCOMES[found.verdict.outcome],
            "text": found.verdict.text,
            "hint": found.verdict.hint,
        },
    }


def _leg(leg: Leg) -> schema.LegResponse:
    return {
        "node": leg.node,
        "phase": "send" if leg.phase is Phase.SEND else "receive",
        "answer": leg.is_answer,
        "findings": [_finding(each) for each in leg.findings],
    }


def _finding(found: Finding) -> schema.FindingResponse:
    return {
        "step": _STEPS.get(found.step, f"step-{found.step}"),
        "outcome": _OUTCOMES[found.outcome],
        "text": found.text,
        "hint": found.hint,
    }


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the route of this module."""

    async def answer(query: schema.TraceQuery) -> schema.TraceResponse:
        return await trace(agent, query)

    server.route(
        "GET", "/v1/trace", "trace", answer, query=schema.TraceQuery, response=schema.TraceResponse
    )
