"""POST /v1/trace/sightings: watch for a marked packet at the target's end, on whichever host."""

from __future__ import annotations

from overlay.agent.api.diagnosis.capture_states import state_name
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema import diagnosis as schema
from overlay.agent.capture.far_end import SILENT
from overlay.agent.components import Components
from overlay.agent.lifecycle import AgentLifecycle
from overlay.core.protocol.capture import Place, PlacedSighting
from overlay.errors import NotFoundError


async def sightings(
    components: Components, request: schema.SightingsRequest
) -> schema.SightingsResponse:
    """Return what was seen of a mark since the first request about it."""
    finder = components.diagnosis.parties
    sources = finder.own_sources(request.source, request.network)
    pair = finder.pair(sources, finder.targets(request.target, request.network), None)
    found = await components.diagnosis.sightings.look(pair, bytes.fromhex(request.mark))
    return {
        "node": components.directory.node_name(pair.target.node_id),
        "state": state_name(SILENT if found is None else found.state),
        "sightings": [] if found is None else [_sighting(each) for each in found.sightings],
    }


def _sighting(found: PlacedSighting) -> schema.SightingResponse:
    return {
        "place": "container" if found.place == Place.CONTAINER else "host",
        "ifname": found.ifname,
        "outgoing": found.is_outgoing,
    }


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the route of this module; only root sends the packet."""

    async def answer(request: schema.SightingsRequest) -> schema.SightingsResponse:
        return await sightings(agent.require_components(), request)

    server.route(
        "POST",
        "/v1/trace/sightings",
        "trace-sightings",
        answer,
        root=True,
        request=schema.SightingsRequest,
        response=schema.SightingsResponse,
        errors_raised=(NotFoundError,),
    )
