"""Finding links by name, and removing many of them at once."""

from __future__ import annotations

import errno
from collections.abc import Sequence
from typing import Final

from overlay.kernel import links, requests
from overlay.kernel.netlinksocket import NetlinkError, Socket

_DOOMED_GROUP: Final = 0x6F76  # nobody else's: group numbers are per namespace, and this is ours


def delete_links(socket: Socket, indexes: Sequence[int]) -> None:
    """Remove links, all at once: each removal waits 20 ms for the kernel's RCU, so does a group."""
    steps = [requests.set_group(index, _DOOMED_GROUP) for index in indexes]
    if steps:
        socket.transact([*steps, requests.delete_group(_DOOMED_GROUP)])


def find_link(socket: Socket, name: str) -> int:
    """Return the index of the link of that name in the socket's namespace; 0 if none."""
    try:
        found = socket.get(requests.get_link(name))
    except NetlinkError as error:
        if error.errno == errno.ENODEV:
            return 0
        raise
    return links.decode(found[0]).index
