"""Handler for the encryption of networks, and its state as the API shows it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Final, Literal

from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema.field_types import EmptyRequest, NetworkFilter
from overlay.agent.api.schema.keys import (
    EncryptionKeyResponse,
    EncryptionPeerResponse,
    EncryptionRotationResponse,
    EncryptionStatusResponse,
    EncryptionSwitchingResponse,
    EncryptionSwitchRequest,
    EncryptionSwitchResponse,
)
from overlay.agent.components import Components
from overlay.agent.encryption.controller import EncryptionController
from overlay.agent.lifecycle import AgentLifecycle
from overlay.core.dataplane.network_drivers import encryption_goal, has_tunnel, is_encrypted
from overlay.core.encryption.device import DEVICES, DeviceReading
from overlay.core.encryption.key_record import WireguardKey
from overlay.core.encryption.switch_phase import SwitchPhase, is_switching
from overlay.errors import ConflictError, TimedOutError
from overlay.model import Network, NodeId, ip_text

_PHASES: Final[Mapping[SwitchPhase, Literal["clear", "ready", "both", "sending", "encrypted"]]] = {
    SwitchPhase.CLEAR: "clear",
    SwitchPhase.READY: "ready",
    SwitchPhase.BOTH: "both",
    SwitchPhase.SENDING: "sending",
    SwitchPhase.ENCRYPTED: "encrypted",
}


async def encryption_status(
    agent: AgentLifecycle, query: NetworkFilter
) -> EncryptionStatusResponse:
    """GET /v1/encryption[?network=NAME]."""
    components = agent.require_components()
    directory, encryption = components.directory, components.forwarding.encryption
    networks = [each for each in directory.networks() if _is_concerned(each)]
    if query.network:
        chosen = directory.network(query.network)
        if not _is_concerned(chosen):
            raise ConflictError(
                f"network {chosen.name} is not encrypted",
                why="its frames cross the underlay in clear",
                hint=f"Encrypt it, while it is in use: overlayd encryption on {chosen.name}"
                if has_tunnel(chosen)
                else "Encrypted networks are overlays: overlayd network create NAME --encrypted",
            )
        networks = [chosen]
    found = await encryption.readings()
    device = DEVICES[encryption.keys.slots.current]
    key, age_s = encryption.keys.current, encryption.replacement.age_s
    clear_in, clear_out = components.forwarding.underlay_filter.refused_clear
    backend = encryption.support.backend
    return {
        "backend": None if backend is None else backend.value,
        "why": encryption.support.why or None,
        "device": device if device in found else None,
        "device_missing": encryption.missing(device, found),
        "address": ip_text(encryption.address),
        "port": encryption.port,
        "key_epoch": None if key is None else key.epoch,
        "key_age_s": None if age_s is None else round(age_s, 1),
        "rotation": _rotation(encryption),
        "networks": [each.name for each in networks if is_encrypted(each)],
        "switching": [_switching(components, each) for each in networks if is_switching(each)],
        "clear_in": clear_in,
        "clear_out": clear_out,
        "peers": _peers(components, networks, found, only_shared=bool(query.network)),
    }


async def rotate(agent: AgentLifecycle, _request: EmptyRequest) -> EncryptionKeyResponse:
    """POST /v1/encryption/rotate."""
    return {"key_epoch": await agent.require_components().forwarding.encryption.rotate()}


def _is_concerned(network: Network) -> bool:
    return is_encrypted(network) or is_switching(network)


def _switching(components: Components, network: Network) -> EncryptionSwitchingResponse:
    goal = encryption_goal(network)
    phase = components.directory.view.encryption_phase(network)
    return {
        "network": network.name,
        "encrypted": goal is not None and goal.encrypted,
        "phase": _PHASES[phase],
        "waiting_for": components.forwarding.encryption_switch.waits(network),
    }


async def switch(
    agent: AgentLifecycle, request: EncryptionSwitchRequest
) -> EncryptionSwitchResponse:
    """POST /v1/encryption/switch."""
    components = agent.require_components()
    name = components.directory.network(request.network).name
    changed = await components.forwarding.switch_service.switch(name, encrypted=request.encrypted)
    return {"network": name, "encrypted": request.encrypted, "changed": changed}


def _rotation(encryption: EncryptionController) -> EncryptionRotationResponse | None:
    slots = encryption.keys.slots
    if not encryption.replacement.is_active:
        return None
    return {
        "step": (
            "retiring"
            if slots.retired is not None
            else "beginning"
            if slots.next is None
            else "moving"
        ),
        "waiting_for": encryption.waits(),
    }


def _peers(
    components: Components,
    networks: list[Network],
    found: dict[str, DeviceReading],
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
    used = components.forwarding.encryption.keys_used()
    rows = [
        _peer(components, node_id, shared.get(node_id, []), found, used.get(node_id))
        for node_id in directory.view.members()
        if node_id != directory.own and (node_id in shared or not only_shared)
    ]
    return sorted(rows, key=lambda row: row["node"])


def _peer(
    components: Components,
    node_id: NodeId,
    shared: list[str],
    found: dict[str, DeviceReading],
    key: WireguardKey | None,
) -> EncryptionPeerResponse:
    encryption = components.forwarding.encryption
    device = None if key is None else DEVICES[key.slot]
    reading = None if device is None else found.get(device)
    there = None if reading is None or key is None else reading.peers.get(key.public_key)
    published = components.directory.view.wireguard_keys(node_id)
    first = None if key is None else encryption.first_handshakes.of(key.public_key)
    now_s = time.time()
    return {
        "node": components.directory.node_name(node_id),
        "networks": shared,
        "address": ip_text(encryption.address_of(node_id)),
        "key_epoch": next((each.epoch for each in [key, *published] if each), None),
        "device": device if there is not None else None,
        "configured": there is not None,
        "since_s": _seconds_since(first, now_s),
        "last_handshake_s": _seconds_since(None if there is None else there.handshake_s, now_s),
        "received": 0 if there is None else there.received,
        "sent": 0 if there is None else there.sent,
    }


def _seconds_since(at_s: float | None, now_s: float) -> float | None:
    return round(max(0.0, now_s - at_s), 1) if at_s else None


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the routes of this module."""

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

    async def replace(request: EmptyRequest) -> EncryptionKeyResponse:
        return await rotate(agent, request)

    server.route(
        "POST",
        "/v1/encryption/rotate",
        "encryption-rotate",
        replace,
        root=True,
        request=EmptyRequest,
        response=EncryptionKeyResponse,
        errors_raised=(TimedOutError,),
    )

    async def change(request: EncryptionSwitchRequest) -> EncryptionSwitchResponse:
        return await switch(agent, request)

    server.route(
        "POST",
        "/v1/encryption/switch",
        "encryption-switch",
        change,
        root=True,
        request=EncryptionSwitchRequest,
        response=EncryptionSwitchResponse,
        errors_raised=(TimedOutError,),
    )
