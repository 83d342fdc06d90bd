"""The indexes of a sandbox's links, by name, as they were last seen.

Owns: what is remembered of them. Does not: create or change a link (`sandbox`).
"""

from __future__ import annotations

import errno
import random
from typing import Final

from overlay.kernel.netlink.link_lookup import find_link
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket

_FIRST_MIN: Final = 2**16  # the kernel's own choices begin at 1
_FIRST_MAX: Final = 2**24


class LinkIndexes:
    """The names and indexes of one sandbox's links."""

    def __init__(self, socket: NetlinkSocket) -> None:
        self._socket = socket
        self._by_name: dict[str, int] = {}
        self._next = random.randrange(_FIRST_MIN, _FIRST_MAX)

    def choose(self) -> int:
        """Return an index for a new link, which nearly always is free.

        A caller that knows it before the link exists needs no request to find it. None is chosen
        twice, so that nothing that still names a former link by its number is about a new one.
        """
        self._next += 1
        return self._next

    def remember(self, name: str, index: int) -> None:
        """Remember a link that was made with a chosen index."""
        self._by_name[name] = index

    def replace(self, names: dict[int, str]) -> None:
        """Remember what was read, and nothing else."""
        self._by_name = {name: index for index, name in names.items()}

    def of(self, name: str) -> int:
        """Return a link's index as remembered, else its present one; 0 if there is none."""
        return self._by_name.get(name) or self.find(name)

    def find(self, name: str) -> int:
        """Return a link's present index, and remember it; 0 if there is none of that name."""
        index = find_link(self._socket, name)
        if index:
            self._by_name[name] = index
        return index

    def of_master(self, name: str) -> int:
        """Return the index of the bridge that a link is a port of; 0 if it has none.

        Raises NetlinkError if there is no such bridge.
        """
        if not name:
            return 0
        index = self.of(name)
        if not index:
            raise NetlinkError(errno.ENODEV, f"there is no bridge {name}")
        return index

    def forget(self, name: str) -> None:
        """Forget a link that was deleted."""
        self._by_name.pop(name, None)
