"""A table in a container's namespace, for as long as the agent has its socket open.

Owns: the namespace and the socket. Does not: know any rule.
"""

from __future__ import annotations

from typing import Self

from overlay import limits
from overlay.kernel import netns
from overlay.kernel.nft.tables import NftTables


class ContainerTable:
    """The table of one container, until `close`. Used by the kernel thread."""

    def __init__(self, netns_fd: int) -> None:
        """Open a socket in the namespace. Raises NftMissingError without nftables."""
        self._tables = NftTables(netns_fd, dump_size_max=limits.CONTAINER_DUMP_SIZE_MAX)

    @classmethod
    def open(cls, netns_path: str, identity: tuple[int, int]) -> Self | None:
        """Open the container's namespace; None if it is gone. Raises OverlayError."""
        fd = netns.open_same(netns_path, identity)
        if fd is None:
            return None
        with netns.closing(fd):
            return cls(fd)

    def close(self) -> None:
        """Remove the table."""
        self._tables.close()
