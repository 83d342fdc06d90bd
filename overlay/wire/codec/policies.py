"""A policy to and from the body of its declared object: a msgpack array.

Owns: that form, and refusing what no honest agent writes. Does not: know which record is in force.
"""

from __future__ import annotations

import ipaddress
from typing import Any, Final

import msgpack

from overlay import limits
from overlay.core.policy.policy import (
    PORT_MAX,
    Peer,
    PeerKind,
    Policy,
    PolicyAction,
    PolicyProtocol,
    PortRange,
)
from overlay.model import Vni
from overlay.wire.codec import validation

_ACTIONS: Final[tuple[PolicyAction, ...]] = ("allow", "deny")
_PROTOCOLS: Final[tuple[PolicyProtocol, ...]] = ("tcp", "udp", "icmp")
_KINDS: Final = (
    PeerKind.LABEL, PeerKind.NAME, PeerKind.HOST, PeerKind.WORLD, PeerKind.CIDR, PeerKind.NETWORK,
)  # fmt: skip
_LOG: Final = 1


def encode_policy(policy: Policy) -> bytes:
    """Return the body of a policy's declared object; its name is not part of it."""
    fields = [
        policy.vni,
        _ACTIONS.index(policy.action),
        [_peer_fields(peer) for peer in policy.sources],
        [_peer_fields(peer) for peer in policy.destinations],
        [[_PROTOCOLS.index(each.protocol), each.first, each.last] for each in policy.ports],
        _LOG * policy.log,
        policy.labels,
    ]
    packed: bytes = msgpack.packb(fields)
    return packed


def _peer_fields(peer: Peer) -> list[Any]:
    number = _KINDS.index(peer.kind)
    match peer.kind:
        case PeerKind.HOST | PeerKind.WORLD:
            return [number]
        case PeerKind.NAME | PeerKind.NETWORK:
            return [number, peer.key]
        case PeerKind.LABEL:
            return [number, peer.key, *([] if peer.value is None else [peer.value])]
        case PeerKind.CIDR:
            assert peer.cidr is not None, "the kind says so"
            return [number, peer.cidr.network_address.packed, peer.cidr.prefixlen]


def decode_policy(name: str, body: bytes) -> Policy:
    """Return the policy of a declared object; raises RemoteError for an invalid one."""
    vni, action, sources, destinations, ports, flags, labels = validation.array(
        validation.unpack(body), 7
    )
    return Policy(
        name=name,
        vni=Vni(validation.integer(vni, limits.VNI_MAX, 1)),
        action=_ACTIONS[validation.integer(action, len(_ACTIONS) - 1)],
        sources=_peers(sources),
        destinations=_peers(destinations),
        ports=tuple(map(_ports, validation.items(ports, limits.POLICY_PORTS_MAX))),
        log=bool(validation.integer(flags, _LOG)),
        labels=validation.labels(labels),
    )


def _peers(value: Any) -> tuple[Peer, ...]:
    return tuple(map(_peer, validation.items(value, limits.POLICY_PEERS_MAX)))


def _peer(value: Any) -> Peer:
    fields = validation.items(value, 3)
    kind = _KINDS[validation.integer(fields[0] if fields else None, len(_KINDS) - 1)]
    match kind:
        case PeerKind.HOST | PeerKind.WORLD:
            validation.array(value, 1)
            return Peer(kind)
        case PeerKind.NAME | PeerKind.NETWORK:
            return Peer(kind, validation.name(validation.array(value, 2)[1]))
        case PeerKind.LABEL:
            return _label(kind, fields)
        case PeerKind.CIDR:
            _, base, length = validation.array(value, 3)
            return _cidr(kind, base, length)


def _label(kind: PeerKind, fields: tuple[Any, ...]) -> Peer:
    _, key, *values = fields if len(fields) > 1 else validation.refuse_malformed()
    if key == "" or "=" in validation.text(key, limits.LABEL_SIZE_MAX):
        validation.refuse_malformed()
    value = validation.text(values[0], limits.LABEL_SIZE_MAX) if values else None
    return Peer(kind, key, value)


def _cidr(kind: PeerKind, base: Any, length: Any) -> Peer:
    ip = validation.ip(base)
    try:
        found = ipaddress.ip_network((bytes(ip), validation.integer(length, 8 * len(ip))))
    except ValueError:  # bits are set beyond the prefix
        validation.refuse_malformed()
    return Peer(kind, cidr=found)


def _ports(value: Any) -> PortRange:
    protocol, first, last = validation.array(value, 3)
    name = _PROTOCOLS[validation.integer(protocol, len(_PROTOCOLS) - 1)]
    found = PortRange(
        name,
        validation.integer(first, PORT_MAX),
        validation.integer(last, PORT_MAX, first if type(first) is int else 0),
    )
    if name == "icmp" and found != PortRange("icmp"):
        validation.refuse_malformed()
    return found
