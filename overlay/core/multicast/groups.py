"""Multicast groups, and the MACs that their frames are sent to.

32 groups of IPv4, and any number of IPv6, share a MAC (RFC 1112 section 6.4, RFC 2464 section 7),
and a VXLAN device knows MACs alone. So a host that wants one group gets all of its MAC.
"""

from __future__ import annotations

from typing import Final

from overlay.model import Ip, Mac

_IPV4: Final = b"\x01\x00\x5e"
_IPV6: Final = b"\x33\x33"
_LOCAL_IPV4: Final = b"\x01\x00\x5e\x00\x00"  # of 224.0.0.0/24, which hosts need not report
_SOLICITED: Final = b"\x33\x33\xff"  # of neighbor discovery (RFC 4291 section 2.7.1)
# Of the link-local groups that protocols have by assignment: ff02::1, ff02::fb, ff02::1:2.
_WELL_KNOWN: Final = (b"\x33\x33\x00\x00", b"\x33\x33\x00\x01\x00")


def mac_of(group: Ip) -> Mac:
    """Return the MAC that frames for a group are sent to."""
    if len(group) == 4:
        return Mac(_IPV4 + bytes([group[1] & 0x7F]) + group[2:])
    return Mac(_IPV6 + group[12:])


def is_multicast(group: bytes) -> bool:
    """Return whether an address is a group's."""
    if len(group) == 4:
        return group[0] >> 4 == 0xE
    return len(group) == 16 and group[0] == 0xFF


def is_prunable(group: Ip) -> bool:
    """Return whether frames for a group may be kept from hosts that have not asked for it.

    Link-local groups and those that share a MAC with one reach all hosts: address resolution,
    discovery and routing depend on them, and members need not report the groups of IPv4.
    """
    if not is_multicast(group):
        return False
    mac = mac_of(group)
    if len(group) == 4:
        return not mac.startswith(_LOCAL_IPV4)
    return not mac.startswith((_SOLICITED, *_WELL_KNOWN))
