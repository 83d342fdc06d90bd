"""Find links by name, list them, and delete many at once (rtnetlink(7))."""

from __future__ import annotations

import errno
import struct
from collections.abc import Sequence
from typing import Final

from overlay.kernel.netlink import codec, link_decoder, link_requests
from overlay.kernel.netlink.codec import NetlinkMessage
from overlay.kernel.netlink.link_decoder import LinkInfo
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket, TornDumpError, messages_of

# Device groups (ip-link(8)) are numbered per namespace; overlayd uses this one for deletion only.
_DELETION_GROUP: Final = 0x6F76
_IFLA_LINKINFO, _IFLA_INFO_KIND, _IFLA_TARGET_NETNSID = 18, 1, 46  # linux/if_link.h
_HEADER: Final = struct.Struct("=BxHiII")  # family, hardware type, index, flags, change


def delete_links(socket: NetlinkSocket, indexes: Sequence[int]) -> None:
    """Delete links by one request for all of them.

    Each request waits 20 ms for an RCU grace period in the kernel, however many links it deletes.
    """
    steps = [link_requests.set_group(index, _DELETION_GROUP) for index in indexes]
    if steps:
        socket.transact([*steps, link_requests.delete_group(_DELETION_GROUP)])


def all_links(socket: NetlinkSocket, kind: str = "") -> list[LinkInfo]:
    """Return the links of a namespace, or those of a kind.

    Raises TornDumpError if they change during every attempt, LargeDumpError if they are too many
    for the socket.
    """
    wanted = link_decoder.DUMP_BODY
    if kind:  # a kernel that knows no such kind gives all
        wanted += codec.attribute(_IFLA_LINKINFO, codec.attribute(_IFLA_INFO_KIND, kind.encode()))
    found = map(link_decoder.decode, socket.dump(codec.RTM_GETLINK, wanted))
    return [each for each in found if kind in ("", each.kind)]


def links_best_effort(socket: NetlinkSocket, kind: str = "") -> list[LinkInfo]:
    """Return them even if they change all the time.

    In that case it is the union of several dumps: a link may be missing, or already gone.
    """
    try:
        return all_links(socket, kind)
    except TornDumpError as error:
        found = map(link_decoder.decode, messages_of(error.seen))
        return list({link.index: link for link in found if kind in ("", link.kind)}.values())


def find_link(socket: NetlinkSocket, name: str) -> int:
    """Return the index of the named link in the socket's namespace.

    Returns 0 if there is none.
    """
    try:
        found = socket.get(link_requests.get_link(name))
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return 0
        raise
    return link_decoder.decode(found[0]).index


def link_name(socket: NetlinkSocket, index: int) -> str:
    """Return the name of a link. Raises NetlinkError (ENODEV if there is none)."""
    found = socket.get((codec.RTM_GETLINK, 0, _HEADER.pack(0, 0, index, 0, 0)))
    return link_decoder.decode(found[0]).name


def link_elsewhere(socket: NetlinkSocket, index: int, namespace: int) -> NetlinkMessage | None:
    """Return the message about a link of another namespace, by the id that this one has for it.

    Returns None if there is no such link, or the namespace is out of reach.
    """
    wanted = codec.attribute(_IFLA_TARGET_NETNSID, struct.pack("=i", namespace))
    try:
        found = socket.get((codec.RTM_GETLINK, 0, _HEADER.pack(0, 0, index, 0, 0) + wanted))
    except NetlinkError:
        return None
    return found[0] if found else None
