"""The frames that ask a segment who has an address: ARP requests, and neighbor solicitations.

The gateway asks, as it does for every machine that it sends to. A probe without a sender (RFC 5227,
RFC 4862) would make a machine that is just taking the address give it up.

Owns: their form (RFC 826, RFC 4861). Does not: send any, or know which addresses to ask for.
"""

from __future__ import annotations

import struct
from typing import Final

from overlay.core.checksum import internet_checksum
from overlay.core.multicast.groups import mac_of
from overlay.model import Ip, Mac

_ARP: Final = struct.Struct("!HHBBH6s4s6s4s")
_REQUEST: Final = 1
_BROADCAST: Final = b"\xff" * 6
_FRAME_SIZE: Final = 60  # the least that Ethernet carries
_IPV6: Final = struct.Struct("!IHBB16s16s")
_ICMPV6, _HOP_LIMIT = 58, 255
_SOLICITATION: Final = 135
_SOURCE_MAC: Final = b"\x01\x01"  # the option with the sender's MAC, of 8 bytes
_SOLICITED_NODE: Final = bytes.fromhex("ff0200000000000000000001ff")  # RFC 4291, 2.7.1


def resolution_frame(mac: Mac, source: Ip, target: Ip) -> bytes:
    """Return the frame by which a gateway asks who has an address of its own family."""
    if len(target) == 4:
        body = _ARP.pack(1, 0x0800, 6, 4, _REQUEST, mac, source, bytes(6), target)
        return (_BROADCAST + mac + b"\x08\x06" + body).ljust(_FRAME_SIZE, b"\0")
    group = Ip(_SOLICITED_NODE + target[-3:])
    message = struct.pack("!BBHI16s", _SOLICITATION, 0, 0, 0, target) + _SOURCE_MAC + mac
    pseudo = source + group + struct.pack("!II", len(message), _ICMPV6)
    checksum = struct.pack("!H", internet_checksum(pseudo + message))
    message = message[:2] + checksum + message[4:]
    head = _IPV6.pack(6 << 28, len(message), _ICMPV6, _HOP_LIMIT, source, group)
    return mac_of(group) + mac + b"\x86\xdd" + head + message
