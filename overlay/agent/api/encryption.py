"""Handler for the encryption of networks, and its state as the API shows it."""

from __future__ import annotations

import time

from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema.field_types import NetworkFilter
from overlay.agent.api.schema.keys import EncryptionPeerResponse, EncryptionStatusResponse
from overlay.agent.components import Components
from overlay.agent.lifecycle import AgentLifecycle
from overlay.core.dataplane.network_drivers import is_encrypted
from overlay.core.encryption.device import DEVICE, DeviceReading
from overlay.errors import ConflictError
from overlay.model import Network, NodeId, ip_text


async def encryption_status(
    agent: AgentLifecycle, query: NetworkFilter
) -> EncryptionStatusResponse:
    """GET /v1/encryption[?network=NAME]."""
    components = agent.require_components()
    directory, encryption = components.directory, components.encryption
    networks = [each for each in directory.networks() if is_encrypted(each)]
    if query.network:
        chosen = directory.network(query.network)
        if not is_encrypted(chosen):
            raise ConflictError(
                f"network {chosen.name} is not encrypted",
                why="a network is encrypted from its creation on, or not at all",
                hint="Create another: overlayd network create NAME --encrypted",
            )
        networks = [chosen]
    found = await encryption.reading()
    key = encryption.key.public
    clear_in, clear_out = components.underlay_filter.refused_clear
    backend = encryption.support.backend
    return {
        "backend": None if backend is None else backend.value,
        "why": encryption.support.why or None,
        "device": None if found is None else DEVICE,
        "address": ip_text(encryption.address),
        "port": encryption.port,
        "key_epoch": None if key is None else key.epoch,
        "networks": [each.name for each in networks],
        "clear_in": clear_in,
        "clear_out": clear_out,
        "peers": _peers(components, networks, found, only_shared=bool(query.network)),
    }


def _peers(
    components: Components,
    networks: list[Network],
    found: DeviceReading | None,
    *,
    only_shared: bool,
) -> list[EncryptionPeerResponse]:
    directory = components.directory
    shared: dict[NodeId, list[str]] = {}
    for network in networks:
        participants = directory.participants(network.vni, forwarding=True)
        if directory.own in participants:
            for node_id in participants:
                shared.setdefault(node_id, []).append(network.name)
    rows = [
        _peer(components, node_id, shared.get(node_id, []), found)
        for node_id in directory.view.members()
        if node_id != directory.own and (node_id in shared or not only_shared)
    ]
    return sorted(rows, key=lambda row: row["node"])


def _peer(
    components: Components, node_id: NodeId, shared: list[str], found: DeviceReading | None
) -> EncryptionPeerResponse:
    encryption = components.encryption
    key = encryption.key_of(node_id)
    there = None if found is None or key is None else found.peers.get(key.public_key)
    ago = None
    if there is not None and there.handshake_s:
        ago = round(max(0.0, time.time() - there.handshake_s), 1)
    return {
        "node": components.directory.node_name(node_id),
        "networks": shared,
        "address": ip_text(encryption.address_of(node_id)),
        "key_epoch": None if key is None else key.epoch,
        "configured": there is not None,
        "last_handshake_s": ago,
        "received": 0 if there is None else there.received,
        "sent": 0 if there is None else there.sent,
    }


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the route of this module."""

    async def answer(query: NetworkFilter) -> EncryptionStatusResponse:
        return await encryption_status(agent, query)

    server.route(
        "GET",
        "/v1/encryption",
        "encryption-status",
        answer,
        query=NetworkFilter,
        response=EncryptionStatusResponse,
    )
