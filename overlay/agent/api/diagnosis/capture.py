"""Routes of captures: where to capture on this host, and what the far end sends.

The command line captures on this host itself; the agent's part is what it alone knows, and the
other host.
"""

from __future__ import annotations

import base64
from collections.abc import AsyncGenerator
from typing import cast

from overlay import limits
from overlay.agent.api.diagnosis.capture_states import state_name
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema import diagnosis as schema
from overlay.agent.api.schema.cluster import STATE_NAMES
from overlay.agent.api.schema.diagnosis import WayKindName
from overlay.agent.capture.far_end import FarNews
from overlay.agent.capture.plan import FarPlan, KnownAddress, TapPlan
from overlay.agent.components import Components
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.trace.party import Party, node_label
from overlay.core.protocol.capture import CapturedFrame
from overlay.errors import NotFoundError
from overlay.model import ip_text, mac_text


def capture(components: Components, query: schema.CaptureQuery) -> schema.CaptureResponse:
    """Return where to capture."""
    found = components.diagnosis.capture_planner.plan(
        query.container, query.peer, query.network, both_ends=query.both_ends == "1"
    )
    return {
        "taps": [_tap(components, each) for each in found.taps],
        "peer": None if found.peer is None else _peer(components, found.peer),
        "far": None if found.far is None else _far(components, found.far),
        "way": cast("WayKindName | None", found.way or None),
        "addresses": [_address(components, each) for each in found.addresses],
    }


async def follow(
    agent: AgentLifecycle, query: schema.FarCaptureQuery
) -> AsyncGenerator[schema.FarCaptureResponse | None, None]:
    """Return the news of the far end, as they come."""
    diagnosis = agent.require_components().diagnosis
    far = diagnosis.capture_planner.far(query.container, query.peer, query.network)
    snap = min(int(query.snap), limits.CAPTURE_PEER_SNAP_MAX)
    news = diagnosis.far_ends.follow(far.container, snap, bytes.fromhex(query.filter))
    return _lines(agent, news)


async def _lines(
    agent: AgentLifecycle, news: AsyncGenerator[FarNews | None, None]
) -> AsyncGenerator[schema.FarCaptureResponse | None, None]:
    try:
        async for each in news:
            if agent.stopping.is_set():
                return
            yield None if each is None else _news(each)
    finally:
        await news.aclose()


def _news(news: FarNews) -> schema.FarCaptureResponse:
    clock = news.clock
    return {
        "state": state_name(news.state),
        "ifname": news.ifname,
        "clock_ahead_ns": None if clock is None else clock.ahead_ns,
        "clock_error_ns": None if clock is None else clock.error_ns,
        "dropped": news.dropped,
        "lost": news.lost,
        "frames": [_frame(each) for each in news.frames],
    }


def _frame(frame: CapturedFrame) -> schema.FarFrameResponse:
    return {
        "time_ns": frame.time_ns,
        "outgoing": frame.is_outgoing,
        "size": frame.size,
        "data": base64.b64encode(frame.data).decode(),
    }


def _tap(components: Components, tap: TapPlan) -> schema.TapResponse:
    party, place = tap.party, tap.place
    device, inode = place.netns_identity
    return {
        "name": party.name,
        "node": components.directory.node_name(party.node_id),
        "network": party.network.name,
        "vni": None if tap.vtep is None else party.network.vni,
        "vtep": None if tap.vtep is None else ip_text(tap.vtep),
        "ips": [ip_text(ip) for ip in party.ips],
        "ifname": place.ifname,
        "mac": mac_text(place.mac),
        "namespace": {"path": place.netns_path, "device": device, "inode": inode},
        "matched": [ip_text(ip) for ip in tap.matched],
    }


def _peer(components: Components, party: Party) -> schema.CapturePeerResponse:
    directory = components.directory
    return {
        "name": party.name,
        "kind": party.kind.value,
        "node": node_label(directory, party),
        "node_state": STATE_NAMES[directory.node_state(party.node_id)],
        "ips": [ip_text(ip) for ip in party.ips],
    }


def _far(components: Components, far: FarPlan) -> schema.FarEndResponse:
    party, directory = far.party, components.directory
    return {
        "name": party.name,
        "node": directory.node_name(party.node_id),
        "node_state": STATE_NAMES[directory.node_state(party.node_id)],
        "network": party.network.name,
        "vni": None if far.vtep is None else party.network.vni,
        "vtep": None if far.vtep is None else ip_text(far.vtep),
        "ips": [ip_text(ip) for ip in party.ips],
        "mac": "" if party.endpoint is None else mac_text(party.endpoint.mac),
    }


def _address(components: Components, known: KnownAddress) -> schema.KnownAddressResponse:
    return {
        "ip": ip_text(known.ip),
        "name": known.name,
        "node": components.directory.node_name(known.node_id),
        "vtep": None if known.vtep is None else ip_text(known.vtep),
    }


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the routes of this module; only root may capture."""

    async def answer(query: schema.CaptureQuery) -> schema.CaptureResponse:
        return capture(agent.require_components(), query)

    async def stream(
        query: schema.FarCaptureQuery,
    ) -> AsyncGenerator[schema.FarCaptureResponse | None, None]:
        return await follow(agent, query)

    server.route(
        "GET",
        "/v1/capture",
        "capture",
        answer,
        root=True,
        query=schema.CaptureQuery,
        response=schema.CaptureResponse,
        errors_raised=(NotFoundError,),
    )
    server.route(
        "GET",
        "/v1/capture/far",
        "capture-far",
        stream,
        root=True,
        query=schema.FarCaptureQuery,
        response=schema.FarCaptureResponse,
        stream=schema.FarCaptureResponse,
        errors_raised=(NotFoundError,),
    )
