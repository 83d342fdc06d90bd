"""The devices' links, addresses and routes in the host's namespace, and the fence behind them.

The fence is an unreachable route for the range of the inner addresses. It is on the loopback, so it
exists before the device and outlives it: without it, an encrypted frame would follow the default
route in clear where the device is gone. A device itself gets addresses and routes of 128 bits
only, because a connected /64 would take the fence's place for every address. During a rotation a
peer has a route into each of the two devices, and the one with the lower metric counts.

Owns: these, their repair, and the mark by which they are recognized. Does not: know keys or peers'
endpoints (`backend`).
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from overlay import failpoint
from overlay.core.encryption.device import TunnelState
from overlay.core.encryption.inner_address import PREFIX_LENGTH, RANGE
from overlay.kernel.netlink import (
    address_requests,
    address_rows,
    codec,
    link_decoder,
    link_requests,
)
from overlay.kernel.netlink.codec import NetlinkMessage, Request, attribute, attributes
from overlay.kernel.netlink.link_decoder import ALIAS_DEFAULT, LinkInfo
from overlay.kernel.netlink.link_lookup import links_best_effort
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.model import Ip

ALIAS: Final = f"{ALIAS_DEFAULT}:wireguard"
_SETTINGS: Final = Path("/proc/sys/net/ipv6/conf")
_HEADER: Final = struct.Struct("=BBBBBBBBI")  # struct rtmsg (linux/rtnetlink.h)
_HEADER_SIZE: Final = 12
_U32: Final = struct.Struct("=I")
_RTA_DST, _RTA_OIF, _RTA_PRIORITY, _RTA_PREFSRC = 1, 4, 6, 7
_TABLE_MAIN: Final = 254
_PROTOCOL_STATIC: Final = 4
_UNICAST, _UNREACHABLE = 1, 7
_METRIC_FENCE: Final = 4_278_198_272  # the kernel's own for its last resorts (IP6_RT_PRIO_...)
_METRIC_PEER: Final = 1024  # the default of `ip -6 route add`
_METRIC_STANDBY: Final = 2048
_ALL_BITS: Final = 128


# --- the fence ------------------------------------------------------------------------------


def ensure_fence(prefix: bytes) -> bool:
    """Add the unreachable route of a cluster's inner addresses; return whether it was missing."""
    with NetlinkSocket() as opened:
        missing = prefix not in set(_fences(opened))
        if missing:
            opened.request((codec.RTM_NEWROUTE, codec.NLM_F_CREATE, _fence(prefix)))
    return missing


def has_fence(prefix: bytes) -> bool:
    """Return whether the unreachable route of a cluster's inner addresses exists."""
    with NetlinkSocket() as opened:
        return prefix in set(_fences(opened))


def remove_fences(prefix: bytes = RANGE) -> list[bytes]:
    """Remove the fences of all clusters, or of one; return their prefixes."""
    with NetlinkSocket() as opened:
        found = [each for each in _fences(opened) if each.startswith(prefix)]
        opened.transact([(codec.RTM_DELROUTE, 0, _fence(each)) for each in found])
    return found


def _fences(opened: NetlinkSocket) -> Iterator[bytes]:
    """Yield the first 64 bits of each fence. Nothing without IPv6."""
    head = _HEADER.pack(socket.AF_INET6, 0, 0, 0, _TABLE_MAIN, 0, 0, _UNREACHABLE, 0)
    for message in _dump_routes(opened, head):
        length, kind = message.buffer[message.start + 1], message.buffer[message.start + 7]
        found = attributes(message.buffer, message.start + _HEADER_SIZE, message.end)
        destination = found.get(_RTA_DST, b"")
        metric = _U32.unpack(found.get(_RTA_PRIORITY, bytes(4)))[0]
        is_fence = kind == _UNREACHABLE and length == PREFIX_LENGTH and metric == _METRIC_FENCE
        if is_fence and destination.startswith(RANGE):
            yield destination[: PREFIX_LENGTH // 8]


def _fence(prefix: bytes) -> bytes:
    head = _HEADER.pack(
        socket.AF_INET6, PREFIX_LENGTH, 0, 0, _TABLE_MAIN, _PROTOCOL_STATIC, 0, _UNREACHABLE, 0
    )
    destination = prefix.ljust(_ALL_BITS // 8, b"\0")
    return head + attribute(_RTA_DST, destination) + attribute(
        _RTA_PRIORITY, _U32.pack(_METRIC_FENCE)
    )  # fmt: skip


def _dump_routes(opened: NetlinkSocket, body: bytes) -> list[NetlinkMessage]:
    try:
        return opened.dump(codec.RTM_GETROUTE, body)
    except NetlinkError as error:
        if error.errno in {errno.EAFNOSUPPORT, errno.ENOENT, errno.EOPNOTSUPP}:
            return []
        raise


# --- the link -------------------------------------------------------------------------------


def find_device(name: str) -> LinkInfo | None:
    """Return the link of this name, or None."""
    with NetlinkSocket() as opened:
        return _find(opened, name)


def _find(opened: NetlinkSocket, name: str) -> LinkInfo | None:
    try:
        return link_decoder.decode(opened.get(link_requests.get_link(name))[0])
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return None
        raise


def remove_devices(*, keep: Collection[str] = ()) -> bool:
    """Delete overlayd's devices, also under other names, but for some; return whether any was.

    wireguard-go ends with its device.
    """
    with NetlinkSocket() as opened:
        found = [
            link.index
            for link in links_best_effort(opened)
            if link.alias == ALIAS and link.name not in keep
        ]
        opened.transact([link_requests.delete_link(index) for index in found])
    return bool(found)


class _Route(NamedTuple):
    """A route into a device."""

    destination: Ip
    length: int
    metric: int


@dataclass(frozen=True, slots=True)
class _Present:
    """The addresses and routes that a device has."""

    addresses: frozenset[tuple[Ip, int]]
    routes: frozenset[_Route]


def link_faults(wanted: TunnelState) -> list[str]:
    """Return what is wrong with the link, its addresses and its routes; nothing if it is right."""
    with NetlinkSocket() as opened:
        there = _find(opened, wanted.name)
        if there is None:
            return [f"{wanted.name} is gone"]
        return _faults(wanted, there, _read(opened, there))


def repair_link(wanted: TunnelState) -> list[str]:
    """Make link, addresses and routes what they should be; return what was wrong.

    Raises NetlinkError if the kernel refuses. The routes come last: they lead somewhere at once.
    """
    with NetlinkSocket() as opened:
        there = _find(opened, wanted.name)
        if there is None:
            raise NetlinkError(errno.ENODEV, f"there is no interface {wanted.name}")
        present = _read(opened, there)
        wrong = _faults(wanted, there, present)
        if wrong:
            _allow_ipv6(wanted.name)
            steps = _repairs(wanted, there, present)
            for refusal in opened.transact(steps):
                kind = steps[refusal.position][0]
                if kind not in {codec.RTM_DELADDR, codec.RTM_DELROUTE}:
                    raise NetlinkError(refusal.errno, f"{wanted.name}: {refusal}")
    return wrong


def _read(opened: NetlinkSocket, there: LinkInfo) -> _Present:
    names = {there.index: there.name}
    addresses = set()
    for message in opened.dump(codec.RTM_GETADDR, address_rows.ADDRESS_DUMP):
        row = address_rows.decode_address(message, names)
        if row is not None:
            addresses.add((row.ip, row.prefix_length))
    head = _HEADER.pack(socket.AF_INET6, 0, 0, 0, _TABLE_MAIN, 0, 0, _UNICAST, 0)
    routes = set()
    for message in _dump_routes(opened, head + attribute(_RTA_OIF, _U32.pack(there.index))):
        found = attributes(message.buffer, message.start + _HEADER_SIZE, message.end)
        if found.get(_RTA_OIF) == _U32.pack(there.index):
            length = message.buffer[message.start + 1]
            (metric,) = _U32.unpack(found.get(_RTA_PRIORITY, bytes(4)))
            routes.add(_Route(Ip(found.get(_RTA_DST, bytes(16))), length, metric))
    return _Present(frozenset(addresses), frozenset(routes))


def _faults(wanted: TunnelState, there: LinkInfo, present: _Present) -> list[str]:
    addresses, routes = {(wanted.address, _ALL_BITS)}, _routes(wanted)
    surplus = _surplus(wanted, present)
    checks = (
        (there.alias != ALIAS, "had lost its mark"),
        (not there.up, "was down"),
        (there.mtu != wanted.mtu, f"had MTU {there.mtu}"),
        (there.generates_address, "generated addresses"),
        (bool(addresses - present.addresses), "lacked its address"),
        (bool(present.addresses - addresses), "had an unexpected address"),
        (bool(routes - present.routes), "lacked a route to a peer"),
        (bool(surplus), "had an unexpected route"),
    )
    return [f"{wanted.name} {text}" for is_wrong, text in checks if is_wrong]


def _routes(wanted: TunnelState) -> set[_Route]:
    metrics = (_METRIC_PEER, _METRIC_STANDBY)
    return {
        _Route(peer.inner, _ALL_BITS, metrics[peer.inner in wanted.standby])
        for peer in wanted.peers
    }


def _surplus(wanted: TunnelState, present: _Present) -> set[_Route]:
    """Return the routes that should not be; one to the own address is the kernel's."""
    found = present.routes - _routes(wanted)
    return {route for route in found if route[:2] != (wanted.address, _ALL_BITS)}


def _repairs(wanted: TunnelState, there: LinkInfo, present: _Present) -> list[Request]:
    index = there.index
    routes = _routes(wanted)
    own = (wanted.address, _ALL_BITS)
    surplus = _surplus(wanted, present)
    steps: list[Request] = [
        link_requests.set_mtu(index, wanted.mtu),
        link_requests.set_alias(index, ALIAS, link_local=False),
        *(address_requests.delete_address(index, *each) for each in present.addresses - {own}),
        *((codec.RTM_DELROUTE, 0, _route(index, each, None)) for each in surplus),
        link_requests.set_up(index),
        address_requests.add_address(index, *own),
    ]
    missing = routes if not there.up else routes - present.routes
    flags = codec.NLM_F_CREATE | codec.NLM_F_REPLACE
    # A route of the same destination and metric into the other device is replaced in one step.
    return steps + [
        (codec.RTM_NEWROUTE, flags, _route(index, route, wanted.address))
        for route in sorted(missing)
    ]


def _route(index: int, route: _Route, source: Ip | None) -> bytes:
    head = _HEADER.pack(
        socket.AF_INET6, route.length, 0, 0, _TABLE_MAIN,
        _PROTOCOL_STATIC if source is not None else 0, 0, _UNICAST, 0,
    )  # fmt: skip
    body = head + attribute(_RTA_DST, route.destination) + attribute(_RTA_OIF, _U32.pack(index))
    body += attribute(_RTA_PRIORITY, _U32.pack(route.metric))
    return body if source is None else body + attribute(_RTA_PREFSRC, source)


def _allow_ipv6(name: str) -> None:
    """Enable IPv6 on the device alone, on a host where new interfaces have none."""
    failpoint.failpoint("host.sysctl")
    path = _SETTINGS / name / "disable_ipv6"
    with contextlib.suppress(OSError):
        if path.read_text(encoding="ascii").strip() != "0":
            path.write_text("0", encoding="ascii")
