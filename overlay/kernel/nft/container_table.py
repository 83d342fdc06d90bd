"""A table in a container's namespace, for as long as the agent has its socket open.

It is the socket's own (NFT_TABLE_F_OWNER): the kernel deletes it with the socket, and refuses to
let anybody else change it. So it is as it was written, and never read: root in the container could
fill its tables until reading them ends the socket.

Owns: the namespace and the socket. Does not: know any rule.
"""

from __future__ import annotations

from typing import Self

from overlay.kernel import netns
from overlay.kernel.nft.table import Table
from overlay.kernel.nft.tables import NftTables


class ContainerTable:
    """The table of one container, until `close`. Used by the kernel thread."""

    def __init__(self, netns_fd: int) -> None:
        """Open a socket in the namespace. Raises NftMissingError without nftables."""
        self._tables = NftTables(netns_fd)
        self._written: Table | None = None

    @classmethod
    def open(cls, netns_path: str, identity: tuple[int, int]) -> Self | None:
        """Open the container's namespace; None if it is gone. Raises OverlayError."""
        fd = netns.open_same(netns_path, identity)
        if fd is None:
            return None
        with netns.closing(fd):
            return cls(fd)

    def write(self, table: Table) -> None:
        """Have this table, an owned one, in place of the last one.

        The first is created, which deletes nothing: the kernel keeps whoever closes a socket of
        nftables waiting while something deleted may still be in use. Raises NftMissingError if the
        kernel lacks something that it needs, else OSError.
        """
        if table == self._written:
            return
        if self._written is not None:
            self._tables.replace(table, {})
        elif not self._tables.create(table, {}):
            # Another program's of that name: the kernel would not make it the socket's own.
            self._tables.delete(table.family, table.name)
            self._tables.replace(table, {})
        self._written = table

    def close(self) -> None:
        """Remove the table."""
        self._tables.close()
