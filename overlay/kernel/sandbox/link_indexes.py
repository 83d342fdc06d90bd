"""The indexes of a sandbox's links, by name, as they were last seen.

Owns: what is remembered of them. Does not: create or change a link (`sandbox`).
"""

from __future__ import annotations

import errno

from overlay.kernel.netlink.link_lookup import find_link
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket


class LinkIndexes:
    """The names and indexes of one sandbox's links."""

    def __init__(self, socket: NetlinkSocket) -> None:
        self._socket = socket
        self._by_name: dict[str, int] = {}

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
