"""Encode and decode address, FDB and neighbor rows as netlink messages.

A hot path: a host may hold 100,000 rows, so messages are packed and unpacked with one `struct` per
message layout.

Owns: the layout of row messages (rtnetlink(7), linux/neighbour.h, linux/if_addr.h), and which of
the kernel's own rows are ignored.
Does not: open sockets; it knows links only by index and name.
"""

from __future__ import annotations

import socket
import struct
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final, NamedTuple

from overlay.core.dataplane.state import (
    AddressRow,
    BarrierRow,
    BridgeFdbRow,
    EntryRow,
    FdbRow,
    FloodRow,
    GroupRow,
    NeighborRow,
    RouteRow,
    Row,
    UnexpectedRow,
)
from overlay.kernel.netlink import codec, routes
from overlay.kernel.netlink.codec import NetlinkMessage, Request, attribute, attributes
from overlay.model import Ip, Mac, ip_text, mac_text

# linux/neighbour.h
_NDA_DST: Final = 1
_NDA_LLADDR: Final = 2
_NDA_VLAN: Final = 5
_NDA_PORT: Final = 6
_NDA_VNI: Final = 7
_NDA_IFINDEX: Final = 8
_NDA_MASTER: Final = 9
_NDA_SRC_VNI: Final = 11
_NDA_NH_ID: Final = 13
_NTF_SELF: Final = 0x02
_NTF_MASTER: Final = 0x04
_NTF_PROXY: Final = 0x08
_NTF_EXT_LEARNED: Final = 0x10
_NUD_REACHABLE: Final = 0x02
_NUD_NOARP: Final = 0x40
_NUD_PERMANENT: Final = 0x80
_NUD_FIXED: Final = _NUD_NOARP | _NUD_PERMANENT
# linux/if_addr.h
_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_IFA_F_NODAD: Final = 0x02
_IFA_F_PERMANENT: Final = 0x80

_NEIGHBOR: Final = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_ADDRESS: Final = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index
_FDB4: Final = struct.Struct("=BxxxiHBBHH6sxxHH4s")
_FDB6: Final = struct.Struct("=BxxxiHBBHH6sxxHH16s")
_BRIDGE_FDB: Final = struct.Struct("=BxxxiHBBHH6sxx")
_NEIGHBOR4: Final = struct.Struct("=BxxxiHBBHH4sHH6sxx")
_NEIGHBOR6: Final = struct.Struct("=BxxxiHBBHH16sHH6sxx")
_NO_MAC: Final = Mac(bytes(6))

_REPLACE: Final = codec.NLM_F_CREATE | codec.NLM_F_REPLACE
_APPEND: Final = codec.NLM_F_CREATE | codec.NLM_F_APPEND


# --- Encoding --------------------------------------------------------------------------


def put(row: Row, index: int) -> Request:
    """Return the request that creates or replaces the row on the link `index`."""
    kind, flags, encode = _ENCODERS[type(row)]
    return (kind, flags, encode(row, index))


def delete(row: Row, index: int) -> Request:
    """Return the request that deletes the row from the link `index`."""
    if type(row) is UnexpectedRow:
        return (codec.RTM_DELNEIGH, 0, row.request)
    kind, _, encode = _ENCODERS[type(row)]
    if type(row) is RouteRow:
        encode = routes.encode_any_route
    return (kind + 1, 0, encode(row, index))  # RTM_DEL... follows RTM_NEW...


def _address(row: AddressRow, index: int) -> bytes:
    # No duplicate address detection: the gateway's address is on every host by design.
    family, flags = (socket.AF_INET, 0) if len(row.ip) == 4 else (socket.AF_INET6, _IFA_F_NODAD)
    head = _ADDRESS.pack(family, row.prefix_length, flags, 0, index)
    return head + attribute(_IFA_LOCAL, row.ip) + attribute(_IFA_ADDRESS, row.ip)


def _fdb(row: FdbRow, index: int) -> bytes:
    # Without NTF_SELF the *bridge* that the device is a port of would be programmed.
    _, mac, vtep = row
    if len(vtep) == 4:
        return _FDB4.pack(7, index, _NUD_PERMANENT, _NTF_SELF, 0, 10, _NDA_LLADDR, mac, 8, 1, vtep)
    return _FDB6.pack(7, index, _NUD_PERMANENT, _NTF_SELF, 0, 10, _NDA_LLADDR, mac, 20, 1, vtep)


def _flood(row: FloodRow, index: int) -> bytes:
    return _fdb(FdbRow(row.link, _NO_MAC, row.vtep), index)


def _group(row: GroupRow, index: int) -> bytes:
    return _fdb(FdbRow(row.link, row.mac, row.vtep), index)


def _bridge_fdb(row: BridgeFdbRow, index: int) -> bytes:
    # Not permanent: that means "a MAC of this host", and the bridge would consume the frame.
    flags = _NTF_MASTER | _NTF_EXT_LEARNED
    return _BRIDGE_FDB.pack(7, index, _NUD_REACHABLE, flags, 0, 10, _NDA_LLADDR, row.mac)


def _neighbor(row: NeighborRow, index: int) -> bytes:
    _, ip, mac = row
    if len(ip) == 4:
        return _NEIGHBOR4.pack(2, index, _NUD_PERMANENT, 0, 0, 8, 1, ip, 10, _NDA_LLADDR, mac)
    return _NEIGHBOR6.pack(10, index, _NUD_PERMANENT, 0, 0, 20, 1, ip, 10, _NDA_LLADDR, mac)


_ENCODERS: Final[dict[type, tuple[int, int, Callable[..., bytes]]]] = {
    AddressRow: (codec.RTM_NEWADDR, _REPLACE, _address),
    FdbRow: (codec.RTM_NEWNEIGH, _REPLACE, _fdb),
    FloodRow: (codec.RTM_NEWNEIGH, _APPEND, _flood),
    GroupRow: (codec.RTM_NEWNEIGH, _APPEND, _group),
    BridgeFdbRow: (codec.RTM_NEWNEIGH, _REPLACE, _bridge_fdb),
    NeighborRow: (codec.RTM_NEWNEIGH, _REPLACE, _neighbor),
    RouteRow: (codec.RTM_NEWROUTE, _REPLACE, routes.encode_route),
    BarrierRow: (codec.RTM_NEWRULE, codec.NLM_F_CREATE, routes.encode_barrier),
    EntryRow: (codec.RTM_NEWRULE, codec.NLM_F_CREATE | codec.NLM_F_EXCL, routes.encode_entry),
}


ROWS: Final = (*_ENCODERS, UnexpectedRow)
"""The types of rows that `put` or `delete` accept."""

# --- A bridge's local entry ------------------------------------------------------------
# The kernel makes a bridge's own MAC a local entry of its FDB: frames for it are for the host. It
# makes it when the MAC is set, and never again: a row for that MAC on a port takes its place, and
# is gone with the port or the row.

LOCAL_ENTRY: Final = "local FDB entry"
"""The name in `altered` of a bridge that lacks its local entry."""


def put_local(index: int, mac: bytes) -> Request:
    """Return the request that restores a bridge's local entry, wherever its MAC is now."""
    head = _NEIGHBOR.pack(codec.AF_BRIDGE, index, _NUD_PERMANENT, _NTF_SELF, 0)
    return (codec.RTM_NEWNEIGH, _REPLACE, head + attribute(_NDA_LLADDR, mac))


def get_entry(bridge: int, mac: bytes) -> Request:
    """Return the query for a bridge's FDB entry of a MAC; ENOENT if there is none."""
    head = _NEIGHBOR.pack(codec.AF_BRIDGE, 0, 0, _NTF_MASTER, 0)
    master = attribute(_NDA_MASTER, struct.pack("=I", bridge))
    return (codec.RTM_GETNEIGH, 0, head + master + attribute(_NDA_LLADDR, mac))


def is_local_entry(message: NetlinkMessage, bridge: int) -> bool:
    """Return whether an FDB entry is local to the bridge itself, not on one of its ports."""
    _, index, state, _, _ = _NEIGHBOR.unpack_from(message.buffer, message.start)
    return index == bridge and bool(state & _NUD_PERMANENT)


# --- Dump requests ---------------------------------------------------------------------

ADDRESS_DUMP: Final = _ADDRESS.pack(0, 0, 0, 0, 0)
NEIGHBOR_DUMP: Final = _NEIGHBOR.pack(0, 0, 0, 0, 0)


def fdb_dump(index: int) -> bytes:
    """Return the dump request for the FDB rows of one bridge port.

    These are its own FDB and its rows of the bridge's. Index 0 requests all ports; the kernel then
    walks the bridge's FDB once per port.
    """
    return _NEIGHBOR.pack(codec.AF_BRIDGE, index, 0, 0, 0)


# --- Decoding --------------------------------------------------------------------------


def address_index(message: NetlinkMessage) -> int:
    """Return the link index of an address message."""
    return int(_ADDRESS.unpack_from(message.buffer, message.start)[4])


def address_identity(message: NetlinkMessage) -> tuple[int, bytes, int]:
    """Return (link index, address, prefix length) of an address message."""
    _, buffer, start, end = message
    _, prefix_length, _, _, index = _ADDRESS.unpack_from(buffer, start)
    found = attributes(buffer, start + 8, end)
    return index, found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b""), prefix_length


class NeighborSubject(NamedTuple):
    """The entry that a neighbor message refers to."""

    in_bridge: bool  # a row of a bridge's FDB
    in_vxlan: bool  # a row of a VXLAN device's own FDB
    link: int  # its index
    address: bytes  # the MAC of an FDB row, the IP address of a neighbor
    vtep: bytes  # of a row for all the rest or for a group, which no MAC identifies


def neighbor_subject(message: NetlinkMessage) -> NeighborSubject:
    """Return the entry that an RTM_NEWNEIGH or RTM_DELNEIGH refers to."""
    _, buffer, start, end = message
    family, index, _, flags, _ = _NEIGHBOR.unpack_from(buffer, start)
    found = attributes(buffer, start + 12, end)
    if family != codec.AF_BRIDGE:
        return NeighborSubject(False, False, index, found.get(_NDA_DST, b""), b"")
    own = bool(flags & _NTF_SELF)
    mac = found.get(_NDA_LLADDR, b"")
    is_one_of_several = mac == _NO_MAC or (mac[:1] and mac[0] & 1)
    vtep = found.get(_NDA_DST, b"") if is_one_of_several else b""
    return NeighborSubject(not own, own, index, mac, vtep)


def decode_address(
    message: NetlinkMessage, names: Mapping[int, str], *, temporary: bool = False
) -> AddressRow | None:
    """Return the address row of a message.

    Returns None if the kernel created it by itself. With `temporary`, addresses with a lifetime
    (for example from DHCP) are included.
    """
    _, buffer, start, end = message
    _, prefix_length, flags, _, index = _ADDRESS.unpack_from(buffer, start)
    name = names.get(index)
    found = attributes(buffer, start + 8, end)
    ip = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b"")
    link_local = ip[:1] == b"\xfe" and ip[1] & 0xC0 == 0x80  # fe80::/10
    expires = not flags & _IFA_F_PERMANENT and not temporary
    if name is None or link_local or expires:
        return None
    return AddressRow(name, Ip(ip), prefix_length)


def decode_neighbor(
    message: NetlinkMessage, names: Mapping[int, str], macs: Mapping[int, bytes]
) -> Row | None:
    """Return the row of an RTM_NEWNEIGH or RTM_DELNEIGH.

    Returns None for the kernel's own rows. `names` and `macs` hold the links' names and MACs by
    index. Rows that the kernel learned or created by itself are ignored. A permanent row that no
    plan contains is returned as an `UnexpectedRow`, which can only be deleted.
    """
    _, buffer, start, end = message
    family, index, state, flags, _ = _NEIGHBOR.unpack_from(buffer, start)
    name = names.get(index)
    if name is None:
        return None
    if family == codec.AF_BRIDGE:
        if flags & _NTF_SELF:
            if not state & _NUD_FIXED:
                return None
            return _decode_fdb(name, buffer, start, end)
        return _decode_bridge_fdb(name, macs.get(index, b""), message)
    if not state & _NUD_PERMANENT or flags & _NTF_PROXY:
        return None
    found = attributes(buffer, start + 12, end)
    mac = found.get(_NDA_LLADDR, b"")
    return NeighborRow(name, Ip(found[_NDA_DST]), Mac(mac))


_FDB_UNEXPECTED: Final = (_NDA_PORT, _NDA_VNI, _NDA_IFINDEX, _NDA_SRC_VNI, _NDA_NH_ID)


def _decode_fdb(name: str, buffer: bytes, start: int, end: int) -> Row | None:
    found = attributes(buffer, start + 12, end)
    mac = Mac(found[_NDA_LLADDR])
    vtep = found.get(_NDA_DST)
    if vtep is None and _NDA_NH_ID not in found:
        return None  # a MAC that a device of another kind receives
    if vtep is None or any(kind in found for kind in _FDB_UNEXPECTED):
        return _unexpected_fdb(name, buffer[start : start + 12], found)
    return _vxlan_row(name, mac, Ip(vtep))


def _vxlan_row(name: str, mac: Mac, vtep: Ip) -> Row:
    """Return the row of an entry with a VTEP: for all the rest, a group, or a container."""
    if mac[0] & 1:
        return GroupRow(mac, name, vtep)
    return FdbRow(name, mac, vtep) if mac != _NO_MAC else FloodRow(name, vtep)


def _decode_bridge_fdb(name: str, own_mac: bytes, message: NetlinkMessage) -> Row | None:
    _, buffer, start, end = message
    _, index, state, flags, _ = _NEIGHBOR.unpack_from(buffer, start)
    found = attributes(buffer, start + 12, end)
    fixed = state & _NUD_FIXED
    if _NDA_MASTER not in found or not (fixed or flags & _NTF_EXT_LEARNED):
        return None
    mac = found[_NDA_LLADDR]
    if fixed and mac == own_mac:
        return None  # the kernel's own row: frames to the port's device itself
    if fixed or _NDA_VLAN in found:
        # A local entry is on the bridge itself, which deletes it as one of its own.
        on_bridge = found[_NDA_MASTER] == struct.pack("=I", index)
        where = _NTF_SELF if on_bridge else _NTF_MASTER
        head = _NEIGHBOR.pack(codec.AF_BRIDGE, index, 0, where, 0)
        parts = [attribute(_NDA_LLADDR, mac)]
        if _NDA_VLAN in found:
            parts.append(attribute(_NDA_VLAN, found[_NDA_VLAN]))
        text = f"{mac_text(Mac(mac))} dev {name} master, fixed"
        return UnexpectedRow(name, text, head + b"".join(parts))
    return BridgeFdbRow(name, Mac(mac))


def _unexpected_fdb(name: str, head: bytes, found: Mapping[int, bytes]) -> UnexpectedRow:
    text = f"{mac_text(Mac(found[_NDA_LLADDR]))} dev {name} self"
    if _NDA_DST in found:
        text += f" dst {ip_text(Ip(found[_NDA_DST]))}"
    if _NDA_VNI in found:
        text += f" vni {int.from_bytes(found[_NDA_VNI], 'little')}"
    kinds = (_NDA_LLADDR, _NDA_DST, *_FDB_UNEXPECTED)
    return UnexpectedRow(
        name,
        text,
        head + b"".join(attribute(kind, found[kind]) for kind in kinds if kind in found),
    )


# --- Dumps of many rows ----------------------------------------------------------------
# Nearly all messages of a big dump are overlayd's rows, in one of five layouts. Those are unpacked
# in one step, attribute headers included; all others are decoded attribute by attribute.


def _header(kind: int, size: int) -> int:
    """Return an attribute's header as one number."""
    return int.from_bytes(attribute(kind, bytes(size))[:4], sys.byteorder)


_HAS_NETNS: Final = _header(10, 4)
_HAS_MAC: Final = _header(_NDA_LLADDR, 6)
_HAS_MASTER: Final = _header(_NDA_MASTER, 4)
_HAS_IP: Final = {4: _header(_NDA_DST, 4), 16: _header(_NDA_DST, 16)}
_HAS_FLAGS: Final = _header(15, 4)
_HAS_CACHE_INFO: Final = _header(3, 16)
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
    if not expected or name is None or state != _NUD_PERMANENT or not flags & _NTF_SELF:
        return None
    return _vxlan_row(name, mac, vtep)


def _fdb6_layout(buffer: bytes, start: int, names: Mapping[int, str]) -> Row | None:
    _, index, state, flags, netns, has_mac, mac, has_ip, vtep, rest = _SELF6.unpack_from(
        buffer, start
    )
    expected = netns == _HAS_NETNS and has_mac == _HAS_MAC and has_ip == _HAS_IP[16]
    name = names.get(index)
    if not expected or rest != _HAS_CACHE_INFO or name is None:
        return None
    if state != _NUD_PERMANENT or not flags & _NTF_SELF:
        return None
    return _vxlan_row(name, mac, vtep)


def _master_layout(buffer: bytes, start: int, names: Mapping[int, str]) -> Row | None:
    _, index, state, flags, has_mac, mac, has_master, rest = _MASTER.unpack_from(buffer, start)
    name = names.get(index)
    # A message of this length with NDA_FLAGS_EXT has no room for a VLAN.
    expected = has_mac == _HAS_MAC and has_master == _HAS_MASTER and rest == _HAS_FLAGS
    if not expected or name is None:
        return None
    if state & _NUD_FIXED or flags & _NTF_SELF or not flags & _NTF_EXT_LEARNED:
        return None
    return BridgeFdbRow(name, mac)


def _neighbor_layout(buffer: bytes, start: int, names: Mapping[int, str]) -> Row | None:
    _, index, state, flags, has_ip, ip, has_mac, mac = _IP4.unpack_from(buffer, start)
    name = names.get(index)
    expected = has_ip == _HAS_IP[4] and has_mac == _HAS_MAC and name is not None
    if not expected or not state & _NUD_PERMANENT or flags & _NTF_PROXY or name is None:
        return None
    return NeighborRow(name, ip, mac)


def _neighbor6_layout(buffer: bytes, start: int, names: Mapping[int, str]) -> Row | None:
    _, index, state, flags, has_ip, ip, has_mac, mac = _IP6.unpack_from(buffer, start)
    name = names.get(index)
    expected = has_ip == _HAS_IP[16] and has_mac == _HAS_MAC and name is not None
    if not expected or not state & _NUD_PERMANENT or flags & _NTF_PROXY or name is None:
        return None
    return NeighborRow(name, ip, mac)


# By (family, message length): the FDB rows of a VTEP and of a bridge both take 76 bytes.
_LAYOUTS: Final[dict[tuple[int, int], Callable[[bytes, int, Mapping[int, str]], Row | None]]] = {
    (codec.AF_BRIDGE, 76): _fdb_layout,
    (codec.AF_BRIDGE, 88): _fdb6_layout,
    (int(socket.AF_INET), 76): _neighbor_layout,
    (int(socket.AF_INET6), 88): _neighbor6_layout,
}
