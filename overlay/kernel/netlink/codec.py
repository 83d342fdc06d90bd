"""Netlink message framing: headers, attributes and error replies.

Owns: framing (netlink(7); linux/netlink.h, linux/rtnetlink.h).
Does not: interpret messages (`link_decoder`, `neighbor_rows`, `routes`) or send them (`socket`).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

# linux/netlink.h
NLM_F_REQUEST: Final = 0x001
NLM_F_ACK: Final = 0x004
NLM_F_DUMP_INTR: Final = 0x010
NLM_F_DUMP: Final = 0x300
NLM_F_REPLACE: Final = 0x100
NLM_F_EXCL: Final = 0x200
NLM_F_CREATE: Final = 0x400
NLM_F_APPEND: Final = 0x800
_NLM_F_CAPPED: Final = 0x100
_NLM_F_ACK_TLVS: Final = 0x200
NLMSG_ERROR: Final = 2
NLMSG_DONE: Final = 3
_NLMSGERR_ATTR_MSG: Final = 1

# linux/rtnetlink.h
RTM_NEWLINK: Final = 16
RTM_DELLINK: Final = 17
RTM_GETLINK: Final = 18
RTM_NEWADDR: Final = 20
RTM_DELADDR: Final = 21
RTM_GETADDR: Final = 22
RTM_NEWROUTE: Final = 24
RTM_DELROUTE: Final = 25
RTM_GETROUTE: Final = 26
RTM_NEWNEIGH: Final = 28
RTM_DELNEIGH: Final = 29
RTM_GETNEIGH: Final = 30
RTM_NEWRULE: Final = 32
RTM_DELRULE: Final = 33
RTM_GETRULE: Final = 34
RTM_NEWQDISC: Final = 36
RTM_DELQDISC: Final = 37
RTM_GETQDISC: Final = 38
RTM_NEWTCLASS: Final = 40
RTM_DELTCLASS: Final = 41
RTM_GETTCLASS: Final = 42
RTM_NEWTFILTER: Final = 44
RTM_DELTFILTER: Final = 45
RTM_GETTFILTER: Final = 46
RTM_NEWNSID: Final = 88
RTM_GETNSID: Final = 90
RTNLGRP_LINK: Final = 1
RTNLGRP_NEIGH: Final = 3
RTNLGRP_TC: Final = 4
RTNLGRP_IPV4_IFADDR: Final = 5
RTNLGRP_IPV4_ROUTE: Final = 7
RTNLGRP_IPV4_RULE: Final = 8
RTNLGRP_IPV6_IFADDR: Final = 9
RTNLGRP_IPV4_NETCONF: Final = 24
RTNLGRP_IPV6_NETCONF: Final = 25
RTNLGRP_IPV6_ROUTE: Final = 11
RTNLGRP_IPV6_RULE: Final = 19
AF_BRIDGE: Final = 7

HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type
ERROR: Final = struct.Struct("=i")
_ATTRIBUTE_TYPE_MASK: Final = 0x3FFF  # without NLA_F_NESTED and NLA_F_NET_BYTEORDER

Request: TypeAlias = tuple[int, int, bytes]
"""(message type, flags other than NLM_F_REQUEST and NLM_F_ACK, body)."""


class NetlinkRefusal(NamedTuple):
    """The kernel's refusal of one request (NLMSG_ERROR, netlink(7))."""

    position: int  # index of the refused request in the batch
    errno: int
    text: str

    def __str__(self) -> str:
        return self.text or os.strerror(self.errno)


class NetlinkMessage(NamedTuple):
    """One received message: its type, and where its body is in `buffer`."""

    kind: int
    buffer: bytes
    start: int
    end: int


def messages_in(buffer: bytes) -> Iterator[tuple[int, int, int, int, int]]:
    """Yield (type, flags, sequence, body start, body end) of each message."""
    unpack = HEADER.unpack_from
    position = 0
    size = len(buffer)
    while position + 16 <= size:
        length, kind, flags, sequence, _ = unpack(buffer, position)
        if length < 16:
            return
        yield kind, flags, sequence, position + 16, position + length
        position += (length + 3) & ~3


def refusal_in(buffer: bytes, flags: int, start: int, end: int) -> NetlinkRefusal | None:
    """Return the refusal in an NLMSG_ERROR message.

    Returns None if it is an acknowledgement. The text comes from the extended acknowledgement
    (NLMSGERR_ATTR_MSG, linux/netlink.h), if any.
    """
    (number,) = ERROR.unpack_from(buffer, start)
    if number == 0:
        return None
    text = ""
    if flags & _NLM_F_ACK_TLVS:
        # The refused message follows the error code; only its header if NLM_F_CAPPED is set.
        (length,) = struct.unpack_from("=I", buffer, start + 4)
        skip = 16 if flags & _NLM_F_CAPPED else (length + 3) & ~3
        words = attributes(buffer, start + 4 + skip, end).get(_NLMSGERR_ATTR_MSG, b"")
        text = words.rstrip(b"\0").decode(errors="replace")
    return NetlinkRefusal(-1, -number, text)


def attributes(
    buffer: bytes, start: int, end: int, wanted: frozenset[int] | None = None
) -> dict[int, bytes]:
    """Return the attributes between two offsets, by type.

    The last one of each type wins. With `wanted`, return only those types: skipping an attribute is
    three times as fast as copying it.
    """
    found: dict[int, bytes] = {}
    unpack = _ATTRIBUTE.unpack_from
    while start + 4 <= end:
        length, kind = unpack(buffer, start)
        if length < 4:
            break
        kind &= _ATTRIBUTE_TYPE_MASK
        if wanted is None or kind in wanted:
            found[kind] = buffer[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


def attribute(kind: int, value: bytes) -> bytes:
    """Return one encoded attribute (struct nlattr), padded to four bytes."""
    length = 4 + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + b"\0" * (-length & 3)
