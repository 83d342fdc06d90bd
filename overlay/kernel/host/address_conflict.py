"""Check whether an address is in use on a segment.

Makes the kernel resolve the neighbor (NTF_USE, linux/neighbour.h) by ARP or neighbor discovery,
which needs no raw socket. This is a shortened form of RFC 5227 section 2.1: devices of one segment
reply within milliseconds, and an attach waits for the result. Blocks, so it must run in a thread of
its own, never in the kernel thread.
"""

from __future__ import annotations

import contextlib
import errno
import socket
import struct
import time
from typing import Final

from overlay.kernel.netlink import address_rows, codec
from overlay.kernel.netlink.codec import attribute, attributes
from overlay.kernel.netlink.link_lookup import find_link
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.model import Ip, Mac

_WAIT_S: Final = 0.3
_POLL_S: Final = 0.02
_HEADER: Final = struct.Struct("=BxxxiHBB")  # family, index, state, flags, type
_NDA_DST, _NDA_LLADDR = 1, 2
_NTF_USE: Final = 1
_NUD_PERMANENT: Final = 0x80
_NUD_KNOWN: Final = 0x02 | 0x04 | 0x08 | 0x10 | _NUD_PERMANENT  # reachable, stale, delay, probe


def address_owner(interface: str, ip: Ip) -> Mac | None:
    """Return the MAC of an address's holder on the interface's segment.

    Returns None without a reply. For an address of this host, returns the zero MAC. Takes at most
    0.3 s.
    """
    with NetlinkSocket() as host:
        index = find_link(host, interface)
        if any(
            address == ip
            for _, address, _ in map(
                address_rows.address_identity,
                host.dump(codec.RTM_GETADDR, address_rows.ADDRESS_DUMP),
            )
        ):
            return Mac(bytes(6))
        known = _neighbor(host, index, ip)
        if known is not None and known[0] & _NUD_PERMANENT:
            return known[1]
        # A known entry may be old, and the kernel would take seconds to verify it.
        with contextlib.suppress(NetlinkError):
            host.request((codec.RTM_DELNEIGH, 0, _body(index, ip, 0)))
        flags = codec.NLM_F_CREATE | codec.NLM_F_REPLACE
        with contextlib.suppress(NetlinkError):  # a device without neighbors
            host.request((codec.RTM_NEWNEIGH, flags, _body(index, ip, _NTF_USE)))
            return _wait(host, index, ip)
    return None


def _wait(host: NetlinkSocket, index: int, ip: Ip) -> Mac | None:
    end = time.monotonic() + _WAIT_S
    while time.monotonic() < end:
        found = _neighbor(host, index, ip)
        if found is not None and found[0] & _NUD_KNOWN:
            return found[1]
        time.sleep(_POLL_S)
    return None


def _neighbor(host: NetlinkSocket, index: int, ip: Ip) -> tuple[int, Mac] | None:
    """Return the state and MAC of the kernel's neighbor entry.

    Returns None if there is none.
    """
    try:
        (message,) = host.get((codec.RTM_GETNEIGH, 0, _body(index, ip, 0)))
    except NetlinkError as error:
        if error.errno == errno.ENOENT:
            return None
        raise
    _, _, state, _, _ = _HEADER.unpack_from(message.buffer, message.start)
    found = attributes(message.buffer, message.start + _HEADER.size, message.end)
    return state, Mac(found.get(_NDA_LLADDR, b""))


def _body(index: int, ip: Ip, flags: int) -> bytes:
    family = socket.AF_INET if len(ip) == 4 else socket.AF_INET6
    return _HEADER.pack(family, index, 0, flags, 0) + attribute(_NDA_DST, ip)
