"""One nftables table of overlayd's, and the notifications of what others do to it.

Owns: the two sockets. Does not: know what the table is for.
"""

from __future__ import annotations

from contextlib import ExitStack

from overlay.kernel.nft.table import Table
from overlay.kernel.nft.tables import Monitor, NftTables


class WatchedTable:
    """A table of a network namespace, whose changes by other programs are noticed."""

    def __init__(self, netns_fd: int, table: Table) -> None:
        """Open the sockets, and look whether the table is there as it should be.

        Raises NftMissingError if the kernel does not support it.
        """
        self._name = table.name
        with ExitStack() as undo:
            self._tables = NftTables(netns_fd)
            undo.callback(self._tables.close)
            self._monitor = Monitor(netns_fd)
            undo.callback(self._monitor.close)
            self._is_intact = self._tables.holds(table)
            if not self._is_intact:
                self._tables.probe(table)
            undo.pop_all()

    def close(self) -> None:
        """Close the sockets; the table stays in force."""
        self._tables.close()
        self._monitor.close()

    def fileno(self) -> int:
        """Return a descriptor that becomes readable when a table changes."""
        return self._monitor.fileno()

    def altered(self) -> bool:
        """Return whether another program changed the table. Never blocks."""
        return self._monitor.touched([self._name], [self._tables.port_id])
