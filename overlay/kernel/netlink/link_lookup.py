"""Finding links, and removing many of them at once."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final

from overlay.kernel.netlink import codec, link_decoder, link_requests
from overlay.kernel.netlink.link_decoder import LinkInfo
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket, TornDumpError, messages_of

_DOOMED_GROUP: Final = 0x6F76  # nobody else's: group numbers are per namespace, and this is ours


def delete_links(socket: NetlinkSocket, indexes: Sequence[int]) -> None:
    """Remove links, all at once: each removal waits 20 ms for the kernel's RCU, so does a group."""
    steps = [link_requests.set_group(index, _DOOMED_GROUP) for index in indexes]
    if steps:
        socket.transact([*steps, link_requests.delete_group(_DOOMED_GROUP)])


def all_links(socket: NetlinkSocket) -> list[LinkInfo]:
    """Return the links of a namespace; raises TornDumpError if they never hold still."""
    return [
        link_decoder.decode(each) for each in socket.dump(codec.RTM_GETLINK, link_decoder.DUMP_BODY)
    ]


def links_best_effort(socket: NetlinkSocket) -> list[LinkInfo]:
    """Return the links of a namespace, also of one that alters them all the time.

    There it is what several dumps saw together: it may lack a link, and have one that is gone.
    """
    try:
        return all_links(socket)
    except TornDumpError as error:
        found = map(link_decoder.decode, messages_of(error.seen))
        return list({link.index: link for link in found}.values())


def find_link(socket: NetlinkSocket, name: str) -> int:
    """Return the index of the link of that name in the socket's namespace; 0 if none."""
    try:
        found = socket.get(link_requests.get_link(name))
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return 0
        raise
    return link_decoder.decode(found[0]).index
