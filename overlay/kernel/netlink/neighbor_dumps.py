"""Decode dumps of FDB rows and neighbors, of which a host may have 100,000.

Nearly all messages of a big dump are overlayd's rows, in one of five layouts. Those are unpacked in
one step, attribute headers included; all others are decoded attribute by attribute
(`neighbor_rows`).

Owns: these layouts. Does not: request a dump.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from overlay.core.dataplane.state import BridgeFdbRow, NeighborRow, Row
from overlay.kernel.netlink import codec
from overlay.kernel.netlink.codec import NetlinkMessage, attribute
from overlay.kernel.netlink.neighbor_format import (
    NDA_CACHEINFO,
    NDA_DST,
    NDA_FLAGS_EXT,
    NDA_LINK_NETNSID,
    NDA_LLADDR,
    NDA_MASTER,
    NTF_EXT_LEARNED,
    NTF_PROXY,
    NTF_SELF,
    NUD_FIXED,
    NUD_PERMANENT,
)
from overlay.kernel.netlink.neighbor_rows import decode_neighbor, vxlan_row


def _header(kind: int, size: int) -> int:
    """Return an attribute's header as one number."""
    return int.from_bytes(attribute(kind, bytes(size))[:4], sys.byteorder)


_HAS_NETNS: Final = _header(NDA_LINK_NETNSID, 4)
_HAS_MAC: Final = _header(NDA_LLADDR, 6)
_HAS_MASTER: Final = _header(NDA_MASTER, 4)
_HAS_IP: Final = {4: _header(NDA_DST, 4), 16: _header(NDA_DST, 16)}
_HAS_FLAGS: Final = _header(NDA_FLAGS_EXT, 4)
_HAS_CACHE_INFO: Final = _header(NDA_CACHEINFO, 16)
_SELF4: Final = struct.Struct("=BxxxiHBxIxxxxI6sxxI4sI")
_SELF6: Final = struct.Struct("=BxxxiHBxIxxxxI6sxxI16sI")
_MASTER: Final = struct.Struct("=BxxxiHBxI6sxxIxxxxI")
_IP4: Final = struct.Struct("=BxxxiHBxI4sI6s")
_IP6: Final = struct.Struct("=BxxxiHBxI16sI6s")


def decode_neighbors(
    buffers: Iterable[bytes],
    names: Mapping[int, str],
    macs: Mapping[int, bytes],
) -> Iterator[Row]:
    """Yield the rows in dumps of FDB rows and neighbors.

    The result is that of `decode_neighbor` for each message.
    """
    header = codec.HEADER.unpack_from
    layouts = _LAYOUTS
    for buffer in buffers:
        position, size = 0, len(buffer)
        while position < size:
            length, kind, _, _, _ = header(buffer, position)
            start = position + 16
            layout = layouts.get((buffer[start], length))
            row = layout(buffer, start, names) if layout is not None else None
            if row is None:
                message = NetlinkMessage(kind, buffer, start, position + length)
                row = decode_neighbor(message, names, macs)
            if row is not None:
                yield row
            position += (length + 3) & ~3


def _fdb_layout(buffer: bytes, start: int, names: Mapping[int, str]) -> Row | None:
    _, index, state, flags, netns, has_mac, mac, has_ip, vtep, rest = _SELF4.unpack_from(
        buffer, start
    )
    if netns != _HAS_NETNS or has_ip != _HAS_IP[4]:
        return _master_layout(buffer, start, names)
    expected = has_mac == _HAS_MAC and rest == _HAS_CACHE_INFO
    name = names.get(index)
    if not expected or name is None or state != NUD_PERMANENT or not flags & NTF_SELF:
        return None
    return vxlan_row(name, mac, vtep)


def _fdb6_layout(buffer: bytes, start: int, names: Mapping[int, str]) -> Row | None:
    _, index, state, flags, netns, has_mac, mac, has_ip, vtep, rest = _SELF6.unpack_from(
        buffer, start
    )
    expected = netns == _HAS_NETNS and has_mac == _HAS_MAC and has_ip == _HAS_IP[16]
    name = names.get(index)
    if not expected or rest != _HAS_CACHE_INFO or name is None:
        return None
    if state != NUD_PERMANENT or not flags & NTF_SELF:
        return None
    return vxlan_row(name, mac, vtep)


def _master_layout(buffer: bytes, start: int, names: Mapping[int, str]) -> Row | None:
    _, index, state, flags, has_mac, mac, has_master, rest = _MASTER.unpack_from(buffer, start)
    name = names.get(index)
    # A message of this length with NDA_FLAGS_EXT has no room for a VLAN.
    expected = has_mac == _HAS_MAC and has_master == _HAS_MASTER and rest == _HAS_FLAGS
    if not expected or name is None:
        return None
    if state & NUD_FIXED or flags & NTF_SELF or not flags & NTF_EXT_LEARNED:
        return None
    return BridgeFdbRow(name, mac)


def _neighbor_layout(buffer: bytes, start: int, names: Mapping[int, str]) -> Row | None:
    _, index, state, flags, has_ip, ip, has_mac, mac = _IP4.unpack_from(buffer, start)
    name = names.get(index)
    expected = has_ip == _HAS_IP[4] and has_mac == _HAS_MAC and name is not None
    if not expected or not state & NUD_PERMANENT or flags & NTF_PROXY or name is None:
        return None
    return NeighborRow(name, ip, mac)


def _neighbor6_layout(buffer: bytes, start: int, names: Mapping[int, str]) -> Row | None:
    _, index, state, flags, has_ip, ip, has_mac, mac = _IP6.unpack_from(buffer, start)
    name = names.get(index)
    expected = has_ip == _HAS_IP[16] and has_mac == _HAS_MAC and name is not None
    if not expected or not state & NUD_PERMANENT or flags & NTF_PROXY or name is None:
        return None
    return NeighborRow(name, ip, mac)


# By (family, message length): the FDB rows of a VTEP and of a bridge both take 76 bytes.
_LAYOUTS: Final[dict[tuple[int, int], Callable[[bytes, int, Mapping[int, str]], Row | None]]] = {
    (codec.AF_BRIDGE, 76): _fdb_layout,
    (codec.AF_BRIDGE, 88): _fdb6_layout,
    (int(socket.AF_INET), 76): _neighbor_layout,
    (int(socket.AF_INET6), 88): _neighbor6_layout,
}
