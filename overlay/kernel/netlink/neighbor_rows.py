"""Encode and decode FDB and neighbor rows as netlink messages.

A host may hold 100,000 rows, so each is packed with one `struct`.

Owns: the layout of these rows, and which of the kernel's own are ignored. Does not: open sockets;
it knows links only by index and name. Dumps of many rows are decoded in `neighbor_dumps`.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from overlay.core.dataplane.state import (
    BridgeFdbRow,
    FdbRow,
    FloodRow,
    GroupRow,
    NeighborRow,
    Row,
    UnexpectedRow,
)
from overlay.kernel.netlink import codec
from overlay.kernel.netlink.codec import NetlinkMessage, attribute, attributes
from overlay.kernel.netlink.neighbor_format import (
    HEADER,
    NDA_DST,
    NDA_IFINDEX,
    NDA_LLADDR,
    NDA_MASTER,
    NDA_NH_ID,
    NDA_PORT,
    NDA_SRC_VNI,
    NDA_VLAN,
    NDA_VNI,
    NO_MAC,
    NTF_EXT_LEARNED,
    NTF_MASTER,
    NTF_PROXY,
    NTF_SELF,
    NUD_FIXED,
    NUD_PERMANENT,
    NUD_REACHABLE,
)
from overlay.model import Ip, Mac, ip_text, mac_text

_FDB4: Final = struct.Struct("=BxxxiHBBHH6sxxHH4s")
_FDB6: Final = struct.Struct("=BxxxiHBBHH6sxxHH16s")
_BRIDGE_FDB: Final = struct.Struct("=BxxxiHBBHH6sxx")
_NEIGHBOR4: Final = struct.Struct("=BxxxiHBBHH4sHH6sxx")
_NEIGHBOR6: Final = struct.Struct("=BxxxiHBBHH16sHH6sxx")

NEIGHBOR_DUMP: Final = HEADER.pack(0, 0, 0, 0, 0)


def fdb_dump(index: int) -> bytes:
    """Return the dump request for the FDB rows of one bridge port.

    These are its own FDB and its rows of the bridge's. Index 0 requests all ports; the kernel then
    walks the bridge's FDB once per port.
    """
    return HEADER.pack(codec.AF_BRIDGE, index, 0, 0, 0)


# --- Encoding --------------------------------------------------------------------------
# The bodies of requests that add or delete a row on the link `index`, all in numbers as this is the
# hot path. Families: 2 is AF_INET, 7 AF_BRIDGE, 10 AF_INET6. Attributes are a size with the header
# (10 of a MAC, 8 and 20 of an address), the kind (1 is NDA_DST), and the value.


def encode_fdb(row: FdbRow, index: int) -> bytes:
    """Encode the VTEP of a remote MAC."""
    # Without NTF_SELF the *bridge* that the device is a port of would be programmed.
    _, mac, vtep = row
    if len(vtep) == 4:
        return _FDB4.pack(7, index, NUD_PERMANENT, NTF_SELF, 0, 10, NDA_LLADDR, mac, 8, 1, vtep)
    return _FDB6.pack(7, index, NUD_PERMANENT, NTF_SELF, 0, 10, NDA_LLADDR, mac, 20, 1, vtep)


def encode_flood(row: FloodRow, index: int) -> bytes:
    """Encode a VTEP that gets all frames for which there is no other row."""
    return encode_fdb(FdbRow(row.link, NO_MAC, row.vtep), index)


def encode_group(row: GroupRow, index: int) -> bytes:
    """Encode a VTEP that gets the frames of a multicast group."""
    return encode_fdb(FdbRow(row.link, row.mac, row.vtep), index)


def encode_bridge_fdb(row: BridgeFdbRow, index: int) -> bytes:
    """Encode the port of the bridge that a remote MAC is behind."""
    # Not permanent: that means "a MAC of this host", and the bridge would consume the frame.
    flags = NTF_MASTER | NTF_EXT_LEARNED
    return _BRIDGE_FDB.pack(7, index, NUD_REACHABLE, flags, 0, 10, NDA_LLADDR, row.mac)


def encode_neighbor(row: NeighborRow, index: int) -> bytes:
    """Encode the MAC of a remote IP address."""
    _, ip, mac = row
    if len(ip) == 4:
        return _NEIGHBOR4.pack(2, index, NUD_PERMANENT, 0, 0, 8, 1, ip, 10, NDA_LLADDR, mac)
    return _NEIGHBOR6.pack(10, index, NUD_PERMANENT, 0, 0, 20, 1, ip, 10, NDA_LLADDR, mac)


# --- Decoding --------------------------------------------------------------------------


class NeighborSubject(NamedTuple):
    """The entry that a neighbor message refers to."""

    in_bridge: bool  # a row of a bridge's FDB
    link: int  # its index
    address: bytes  # the MAC of an FDB row, the IP address of a neighbor
    vtep: bytes  # of a row for all the rest or for a group, which no MAC identifies


def neighbor_subject(message: NetlinkMessage) -> NeighborSubject:
    """Return the entry that an RTM_NEWNEIGH or RTM_DELNEIGH refers to."""
    _, buffer, start, end = message
    family, index, _, flags, _ = HEADER.unpack_from(buffer, start)
    found = attributes(buffer, start + 12, end)
    if family != codec.AF_BRIDGE:
        return NeighborSubject(False, index, found.get(NDA_DST, b""), b"")
    own = bool(flags & NTF_SELF)
    mac = found.get(NDA_LLADDR, b"")
    is_one_of_several = mac == NO_MAC or (mac[:1] and mac[0] & 1)
    vtep = found.get(NDA_DST, b"") if is_one_of_several else b""
    return NeighborSubject(not own, index, mac, vtep)


def decode_neighbor(
    message: NetlinkMessage, names: Mapping[int, str], macs: Mapping[int, bytes]
) -> Row | None:
    """Return the row of an RTM_NEWNEIGH or RTM_DELNEIGH.

    Returns None for the kernel's own rows. `names` and `macs` hold the links' names and MACs by
    index. Rows that the kernel learned or created by itself are ignored. A permanent row that no
    plan contains is returned as an `UnexpectedRow`, which can only be deleted.
    """
    _, buffer, start, end = message
    family, index, state, flags, _ = HEADER.unpack_from(buffer, start)
    name = names.get(index)
    if name is None:
        return None
    if family == codec.AF_BRIDGE:
        if flags & NTF_SELF:
            if not state & NUD_FIXED:
                return None
            return _decode_fdb(name, buffer, start, end)
        return _decode_bridge_fdb(name, macs.get(index, b""), message)
    if not state & NUD_PERMANENT or flags & NTF_PROXY:
        return None
    found = attributes(buffer, start + 12, end)
    mac = found.get(NDA_LLADDR, b"")
    return NeighborRow(name, Ip(found[NDA_DST]), Mac(mac))


_FDB_UNEXPECTED: Final = (NDA_PORT, NDA_VNI, NDA_IFINDEX, NDA_SRC_VNI, NDA_NH_ID)


def _decode_fdb(name: str, buffer: bytes, start: int, end: int) -> Row | None:
    found = attributes(buffer, start + 12, end)
    mac = Mac(found[NDA_LLADDR])
    vtep = found.get(NDA_DST)
    if vtep is None and NDA_NH_ID not in found:
        return None  # a MAC that a device of another kind receives
    if vtep is None or any(kind in found for kind in _FDB_UNEXPECTED):
        return _unexpected_fdb(name, buffer[start : start + 12], found)
    return vxlan_row(name, mac, Ip(vtep))


def vxlan_row(name: str, mac: Mac, vtep: Ip) -> Row:
    """Return the row of an entry with a VTEP: for all the rest, a group, or a container."""
    if mac[0] & 1:
        return GroupRow(mac, name, vtep)
    return FdbRow(name, mac, vtep) if mac != NO_MAC else FloodRow(name, vtep)


def _decode_bridge_fdb(name: str, own_mac: bytes, message: NetlinkMessage) -> Row | None:
    _, buffer, start, end = message
    _, index, state, flags, _ = HEADER.unpack_from(buffer, start)
    found = attributes(buffer, start + 12, end)
    fixed = state & NUD_FIXED
    if NDA_MASTER not in found or not (fixed or flags & NTF_EXT_LEARNED):
        return None
    mac = found[NDA_LLADDR]
    if fixed and mac == own_mac:
        return None  # the kernel's own row: frames to the port's device itself
    if fixed or NDA_VLAN in found:
        # A local entry is on the bridge itself, which deletes it as one of its own.
        on_bridge = found[NDA_MASTER] == struct.pack("=I", index)
        where = NTF_SELF if on_bridge else NTF_MASTER
        head = HEADER.pack(codec.AF_BRIDGE, index, 0, where, 0)
        parts = [attribute(NDA_LLADDR, mac)]
        if NDA_VLAN in found:
            parts.append(attribute(NDA_VLAN, found[NDA_VLAN]))
        text = f"{mac_text(Mac(mac))} dev {name} master, fixed"
        return UnexpectedRow(name, text, head + b"".join(parts))
    return BridgeFdbRow(name, Mac(mac))


def _unexpected_fdb(name: str, head: bytes, found: Mapping[int, bytes]) -> UnexpectedRow:
    text = f"{mac_text(Mac(found[NDA_LLADDR]))} dev {name} self"
    if NDA_DST in found:
        text += f" dst {ip_text(Ip(found[NDA_DST]))}"
    if NDA_VNI in found:
        text += f" vni {int.from_bytes(found[NDA_VNI], 'little')}"
    kinds = (NDA_LLADDR, NDA_DST, *_FDB_UNEXPECTED)
    return UnexpectedRow(
        name,
        text,
        head + b"".join(attribute(kind, found[kind]) for kind in kinds if kind in found),
    )
