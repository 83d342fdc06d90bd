"""Compare matches of iptables that nf_tables keeps as they are (linux/netfilter/xt_*.h).

Owns: the few whose parameters decide about VXLAN packets on common hosts: ufw's, Docker's and
Kubernetes'. What any other compares is not known.
"""

from __future__ import annotations

import struct
from typing import Final

from overlay.core.native.firewall import VxlanTraffic

_CONNTRACK: Final = struct.Struct("=128x8x10xHHHH")  # xt_conntrack_mtinfo3, up to `status_mask`
_STATE: Final = 1 << 0  # XT_CONNTRACK_STATE
_UNTRACKED: Final = 1 << 8  # XT_CONNTRACK_STATE_UNTRACKED
_ADDRTYPE: Final = struct.Struct("=HHI")  # xt_addrtype_info_v1
_LOCAL: Final = 1 << 2  # XT_ADDRTYPE_LOCAL
_INVERT_TARGET: Final = 2  # XT_ADDRTYPE_INVERT_DEST
_UDP: Final = struct.Struct("=HHHHB")  # xt_udp: ports from and to, and what is inverted
_INVERT_TARGET_PORT: Final = 2  # XT_UDP_INV_DSTPT
_ANY_SOURCE: Final = (0, 0xFFFF, 0)  # ports, and what else is inverted
_MULTIPORT: Final = struct.Struct("=BB15H15BB")  # xt_multiport_v1
_TARGET_PORTS: Final = 1  # XT_MULTIPORT_DESTINATION
_PORTS_MAX: Final = 15


def extension_matches(
    name: str, revision: int, data: bytes, traffic: VxlanTraffic, *, is_untracked: bool
) -> bool | None:
    """Return whether packets have what a match asks for; None if that is not known."""
    try:
        match name, revision:
            case "comment", _:
                return True
            case "tcp" | "icmp" | "icmp6" | "sctp" | "dccp", _:
                return False
            case "conntrack", 3 if is_untracked:
                return _conntrack(data)
            case "addrtype", 1:
                return _address_type(data, incoming=traffic.incoming)
            case "udp", 0:
                return _udp(data, traffic.port)
            case "multiport", 1:
                return _multiport(data, traffic.port)
    except struct.error:
        pass  # another kernel's parameters
    return None


def _conntrack(data: bytes) -> bool:
    """Compare packets that are not tracked: of these the kernel looks at the state alone."""
    flags, inverted, states, _ = _CONNTRACK.unpack_from(data)
    if flags & _STATE and bool(states & _UNTRACKED) == bool(inverted & _STATE):
        return False
    return bool(flags & _STATE)


def _address_type(data: bytes, *, incoming: bool) -> bool | None:
    sources, targets, flags = _ADDRTYPE.unpack_from(data)
    if sources or not incoming:
        return None
    return bool(targets & _LOCAL) != bool(flags & _INVERT_TARGET)


def _udp(data: bytes, port: int) -> bool | None:
    source_low, source_high, low, high, inverted = _UDP.unpack_from(data)
    if (low <= port <= high) == bool(inverted & _INVERT_TARGET_PORT):
        return False
    return (
        True if (source_low, source_high, inverted & ~_INVERT_TARGET_PORT) == _ANY_SOURCE else None
    )


def _multiport(data: bytes, port: int) -> bool | None:
    kind, count, *rest = _MULTIPORT.unpack_from(data)
    ports, ranges, inverted = rest[:_PORTS_MAX], rest[_PORTS_MAX : 2 * _PORTS_MAX], rest[-1]
    if kind != _TARGET_PORTS or count > _PORTS_MAX:
        return None
    hit, at = False, 0
    while at < count:
        last = ports[at + 1] if ranges[at] and at + 1 < count else ports[at]
        hit = hit or ports[at] <= port <= last
        at += 2 if ranges[at] else 1
    return hit != bool(inverted)
