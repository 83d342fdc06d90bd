"""Read a sandbox's rows of remote endpoints part by part.

Owns: a netlink socket for the dumps, so that other requests go between two parts, and the order
of the tables. Does not: decide what a difference means (`core`).
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import islice
from typing import Final, NamedTuple

from overlay.core.dataplane.link_state import Port
from overlay.core.dataplane.operations import DeleteRow, Operation, PutRow
from overlay.core.dataplane.planning.planned_rows import NO_REMOTE_ROWS, PlannedRows
from overlay.core.dataplane.planning.row_comparison import RowComparison
from overlay.core.dataplane.state import (
    BridgeFdbRow,
    FdbRow,
    FloodRow,
    GroupRow,
    NeighborRow,
    RemoteRow,
    Row,
)
from overlay.kernel.bpf.fast_path import FastPath
from overlay.kernel.netlink import codec, neighbor_dumps, neighbor_rows
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket, TornDumpError
from overlay.kernel.sandbox.operation_failure import link_of

_ATTEMPTS: Final = 2
_ENTRIES_TOGETHER: Final = 400  # of a map; as many as rows in a part of a dump


class _Table(NamedTuple):
    """One of the kernel's tables: the kinds of planned rows in it, and how to read it in parts."""

    kinds: tuple[type[Row], ...]
    parts: Callable[[], Iterator[Iterable[Row]]]


class RowReading:
    """One reading of the rows of one sandbox."""

    def __init__(
        self,
        socket: NetlinkSocket,
        names: dict[int, str],
        macs: dict[int, bytes],
        ports: Sequence[int],
        fast_path: FastPath | None,
        planned: PlannedRows,
    ) -> None:
        """Read by `socket`, which becomes this object's; of the FDB, what is on `ports`."""
        self.found = RowComparison(planned.remote, planned.own)
        self.is_overtaken = False
        """Links were made or removed, or too many rows changed: it says nothing about the plan."""
        self.row_count: int | None = None
        """How many rows the kernel's tables of neighbors have; None before their end."""
        self.spent_s = 0.0
        """The processor time of the reading so far."""
        self._socket = socket
        self._names = names
        self._macs = macs
        self._ports = ports
        self._fast_path = fast_path
        self._parts = self._read()

    def close(self) -> None:
        """Close the socket; a reading that was not at its end is overtaken."""
        self.is_overtaken = True
        self._parts = iter(())  # these refer to this object, which would wait for a collection
        self._socket.close()

    def read_some(self) -> bool:
        """Read the next part, of some 400 rows; return whether there are more. Raises OSError."""
        began_s = time.thread_time()
        try:
            return not self.is_overtaken and next(self._parts, False)
        finally:
            self.spent_s += time.thread_time() - began_s

    def note(self, operations: Iterable[Operation]) -> None:
        """Leave out what is changed by operations between two parts."""
        if self.is_overtaken:
            return
        for each in operations:
            if not isinstance(each, PutRow | DeleteRow) and not isinstance(link_of(each), Port):
                self.is_overtaken = True
        self.found.note_changes(
            each.row for each in operations if isinstance(each, PutRow | DeleteRow)
        )
        self.is_overtaken |= not self.found.is_useful
        if self.is_overtaken:  # what it has noted of 50,000 rows takes 5 MiB
            self.found = RowComparison(NO_REMOTE_ROWS)

    def _read(self) -> Iterator[bool]:
        """Yield after each part.

        A table is read once more if a row is missing: a dump skips one where another one before
        it has been deleted since the part before.
        """
        counts = []
        for kinds, parts in self._tables():
            for _ in range(_ATTEMPTS):
                count = 0
                try:
                    for part in parts():
                        rows = list(part)
                        count += len(rows)
                        self.found.update(rows)
                        yield True
                except TornDumpError:
                    pass
                if self.found.settle(kinds):
                    break
            counts += [] if RemoteRow in kinds else [count]
        self.row_count = sum(counts)

    def _tables(self) -> Iterator[_Table]:
        yield _Table((NeighborRow,), self._neighbors)
        yield _Table((FdbRow, BridgeFdbRow, FloodRow, GroupRow), self._fdb)
        if self._fast_path is not None:
            yield _Table((RemoteRow,), self._remotes)

    def _neighbors(self) -> Iterator[Iterable[Row]]:
        return self._decoded(neighbor_rows.NEIGHBOR_DUMP)

    def _fdb(self) -> Iterator[Iterable[Row]]:
        for port in self._ports:
            try:
                yield from self._decoded(neighbor_rows.fdb_dump(port))
            except NetlinkError as error:
                if error.errno != errno.ENODEV:  # deleted since the links were read
                    raise

    def _remotes(self) -> Iterator[Iterable[Row]]:
        assert self._fast_path is not None
        entries = self._fast_path.remote.rows()
        while part := list(islice(entries, _ENTRIES_TOGETHER)):
            yield part

    def _decoded(self, body: bytes) -> Iterator[Iterable[Row]]:
        for buffer in self._socket.dump_stream(codec.RTM_GETNEIGH, body):
            yield neighbor_dumps.decode_neighbors((buffer,), self._names, self._macs)
