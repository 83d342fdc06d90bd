"""Encode and decode address rows as netlink messages (rtnetlink(7), linux/if_addr.h).

Owns: their layout, and which of the kernel's own addresses are ignored. Does not: open sockets; it
knows links only by index and name.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Mapping
from typing import Final

from overlay.core.dataplane.state import AddressRow
from overlay.kernel.netlink.codec import NetlinkMessage, attribute, attributes
from overlay.model import Ip

_IFA_ADDRESS: Final = 1
_IFA_LOCAL: Final = 2
_IFA_F_NODAD: Final = 0x02
_IFA_F_PERMANENT: Final = 0x80

_HEADER: Final = struct.Struct("=BBBBi")  # family, prefix length, flags, scope, index

ADDRESS_DUMP: Final = _HEADER.pack(0, 0, 0, 0, 0)


def encode_address(row: AddressRow, index: int) -> bytes:
    """Return the body of the request that adds or deletes the row on the link `index`."""
    # No duplicate address detection: the gateway's address is on every host by design.
    family, flags = (socket.AF_INET, 0) if len(row.ip) == 4 else (socket.AF_INET6, _IFA_F_NODAD)
    head = _HEADER.pack(family, row.prefix_length, flags, 0, index)
    return head + attribute(_IFA_LOCAL, row.ip) + attribute(_IFA_ADDRESS, row.ip)


def address_index(message: NetlinkMessage) -> int:
    """Return the link index of an address message."""
    return int(_HEADER.unpack_from(message.buffer, message.start)[4])


def address_identity(message: NetlinkMessage) -> tuple[int, bytes, int]:
    """Return (link index, address, prefix length) of an address message."""
    _, buffer, start, end = message
    _, prefix_length, _, _, index = _HEADER.unpack_from(buffer, start)
    found = attributes(buffer, start + 8, end)
    return index, found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b""), prefix_length


def decode_address(
    message: NetlinkMessage, names: Mapping[int, str], *, temporary: bool = False
) -> AddressRow | None:
    """Return the address row of a message.

    Returns None if the kernel created it by itself. With `temporary`, addresses with a lifetime
    (for example from DHCP) are included.
    """
    _, buffer, start, end = message
    _, prefix_length, flags, _, index = _HEADER.unpack_from(buffer, start)
    name = names.get(index)
    found = attributes(buffer, start + 8, end)
    ip = found.get(_IFA_LOCAL) or found.get(_IFA_ADDRESS, b"")
    link_local = ip[:1] == b"\xfe" and ip[1] & 0xC0 == 0x80  # fe80::/10
    expires = not flags & _IFA_F_PERMANENT and not temporary
    if name is None or link_local or expires:
        return None
    return AddressRow(name, Ip(ip), prefix_length)
