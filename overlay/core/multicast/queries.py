"""Queries that ask a host's containers for their groups (RFC 3376 section 4.1, RFC 3810 5.1).

They come from no address (IPv4) or the gateway's link-local one, so that a router in a container
stays the one that counts (RFC 4541 section 2.1.1).
"""

from __future__ import annotations

import struct
from typing import Final

from overlay.core.checksum import internet_checksum
from overlay.core.multicast.groups import mac_of
from overlay.model import Ip, Mac, link_local_ip

_ALL_IPV4: Final = Ip(bytes([224, 0, 0, 1]))
_ALL_IPV6: Final = Ip(b"\xff\x02" + bytes(13) + b"\x01")
_ROUTER_ALERT_IPV4: Final = b"\x94\x04\x00\x00"  # RFC 2113
_ROUTER_ALERT_IPV6: Final = b"\x3a\x00\x05\x02\x00\x00\x01\x00"  # ICMPv6 follows; RFC 2711
_IPV4: Final = struct.Struct("!BBHHHBBH4s4s4s")
_IPV6: Final = struct.Struct("!IHBB16s16s")
_ROBUSTNESS: Final = 2


def query_frame(mac: Mac, size: int, response_s: float, group: Ip | None = None) -> bytes:
    """Return a query of a bridge with that MAC, for all groups of a family or for one.

    `size` is the number of bytes of the family's addresses.
    """
    if size == 4:
        return _ipv4(mac, min(255, round(10 * response_s)), group)
    return _ipv6(mac, round(1000 * response_s), group)


def _ipv4(mac: Mac, response: int, group: Ip | None) -> bytes:
    target = group or _ALL_IPV4
    body = struct.pack("!BBH4sBBH", 0x11, response, 0, group or bytes(4), _ROBUSTNESS, 60, 0)
    body = body[:2] + struct.pack("!H", internet_checksum(body)) + body[4:]
    fields = (0x46, 0xC0, 24 + len(body), 0, 0, 1, 2)
    head = _IPV4.pack(*fields, 0, bytes(4), target, _ROUTER_ALERT_IPV4)
    head = _IPV4.pack(*fields, internet_checksum(head), bytes(4), target, _ROUTER_ALERT_IPV4)
    return mac_of(target) + mac + b"\x08\x00" + head + body


def _ipv6(mac: Mac, response: int, group: Ip | None) -> bytes:
    target, source = group or _ALL_IPV6, link_local_ip(mac)
    fields = (response, 0, group or bytes(16), _ROBUSTNESS, 60, 0)
    body = struct.pack("!BBHHH16sBBH", 130, 0, 0, *fields)
    pseudo = source + target + struct.pack("!II", len(body), 58)
    body = body[:2] + struct.pack("!H", internet_checksum(pseudo + body)) + body[4:]
    size = len(_ROUTER_ALERT_IPV6) + len(body)
    head = _IPV6.pack(6 << 28, size, 0, 1, source, target)
    return mac_of(target) + mac + b"\x86\xdd" + head + _ROUTER_ALERT_IPV6 + body
