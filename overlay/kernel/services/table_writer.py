"""Write a client's table, and compare it.

The table says what it holds and what the number of the namespace's rules was when it was written.
As long as that number (NFT_MSG_GETGEN) is the same, nobody has changed a rule there, so an agent
that starts adopts the table without reading it: 100,000 elements take seconds.

A socket that has deleted something is closed only once no packet can meet that (RCU): 10 ms and
more, in which nothing else is written. So sockets of many containers are closed at their end.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from overlay.kernel import netns
from overlay.kernel.host import conntrack
from overlay.kernel.netlink.socket import LargeDumpError
from overlay.kernel.nft.messages import put_elements
from overlay.kernel.nft.table import Elements, Table
from overlay.kernel.nft.tables import NftTables
from overlay.kernel.services import connection_moves, waiting_sockets
from overlay.kernel.services.client_table import STATE
from overlay.kernel.services.connection_moves import KEPT_MS, Move
from overlay.kernel.services.table_plan import TablePlan, change_requests, creation_requests

_NATIVE: Final = struct.Struct("=I")
_DUMP_SIZE_MAX: Final = attrgetter("dump_size_max")


@dataclass(frozen=True, slots=True)
class WrittenTable:
    """What a container's table holds, with its own statement about that."""

    plan: TablePlan
    state: bytes
    generation: int | None  # of the namespace's rules; None: others changed some meanwhile


def ensure(
    path: str,
    identity: tuple[int, int],
    table: Table,
    plan: TablePlan,
    written: WrittenTable | None,
    unclosed: list[NftTables] | None = None,
) -> tuple[WrittenTable | None, bool]:
    """Have a container's table hold exactly this; without virtual addresses there is no table.

    `written` is what the last call returned. The socket is left in `unclosed`, if that is given.
    Returns what is written now (None: no table, or the container is gone), and whether another
    program had altered the table. Raises OverlayError, NftMissingError, OSError.
    """
    expected = plan if written is None else max(plan, written.plan, key=_DUMP_SIZE_MAX)
    with _tables_of(path, identity, expected, unclosed) as tables:
        if tables is None:
            return None, False
        if plan.is_empty:
            tables.delete(table.family, table.name)
            return None, False
        return _put(tables, table, plan, written)


def is_intact(path: str, identity: tuple[int, int], table: Table, plan: TablePlan) -> bool:
    """Return whether a container's table holds exactly this, or the container is gone."""
    with _tables_of(path, identity, plan) as tables:
        return tables is None or _matches(_contents(tables, table), plan)


@contextmanager
def _tables_of(
    path: str,
    identity: tuple[int, int],
    expected: TablePlan,
    unclosed: list[NftTables] | None = None,
) -> Iterator[NftTables | None]:
    """Open the tables of a container, to read what is expected there; None if it is gone."""
    fd = netns.open_same(path, identity)
    if fd is None:
        yield None
        return
    with netns.closing(fd):
        tables = NftTables(fd, dump_size_max=expected.dump_size_max)
        try:
            yield tables
        finally:
            if unclosed is None:
                tables.close()
            else:
                unclosed.append(tables)


def close(unclosed: list[NftTables]) -> None:
    """Close the sockets that `ensure` left."""
    while unclosed:
        unclosed.pop().close()


def _put(
    tables: NftTables, table: Table, plan: TablePlan, written: WrittenTable | None
) -> tuple[WrittenTable, bool]:
    generation, is_altered, is_new = tables.generation(), False, False
    if written is None or written.generation != generation:
        left = _state_left(tables, table) if written is None else b""
        if left == plan.digest + _NATIVE.pack(generation):
            return WrittenTable(plan, left, generation), False
        if left.endswith(_NATIVE.pack(generation)):  # intact, and services have changed since
            return _write(tables, table, None, plan, generation), False
        contents = _contents(tables, table)
        expected = written.plan if written is not None else plan
        is_intact = contents is not None and _matches(contents, expected)
        is_altered = written is not None and not is_intact
        found = next(iter(contents[STATE]), b"") if contents is not None else b""
        written = WrittenTable(expected, found, generation) if is_intact and found else None
        is_new = contents is None
    elif written.plan is plan:
        return written, False
    return _write(tables, table, written, plan, generation, is_new=is_new), is_altered


def _write(
    tables: NftTables,
    table: Table,
    before: WrittenTable | None,
    plan: TablePlan,
    generation: int,
    *,
    is_new: bool = False,
) -> WrittenTable:
    """Write what differs, or all of it without knowing what is there; in one transaction.

    A table that seems to be new is created, as nothing has to be waited for then.
    """
    state = plan.digest + _NATIVE.pack(generation + 1 & 0xFFFFFFFF)
    stated = {STATE: frozenset([state])}
    if before is None or not _change(tables, table, before, plan, stated):
        whole = stated, creation_requests(table, plan)
        if not (is_new and tables.create(table, *whole)):
            tables.replace(table, *whole)
    after = tables.generation()
    return WrittenTable(plan, state, after if state.endswith(_NATIVE.pack(after)) else None)


def _change(
    tables: NftTables, table: Table, before: WrittenTable, plan: TablePlan, stated: Elements
) -> bool:
    """Change the elements that differ; return False if the table is not as expected."""
    with suppress(FileExistsError, FileNotFoundError):
        old = {STATE: frozenset([before.state])}
        tables.change(table, stated, old, change_requests(table, before.plan, plan))
        return True
    return False


def move(
    path: str,
    identity: tuple[int, int],
    table: Table,
    written: WrittenTable,
    moves: Sequence[Move],
) -> WrittenTable:
    """Lead a container's connections to other backends with their next SYN.

    Those for which there is none end. Returns what is written now. Raises OverlayError, OSError.
    """
    with _tables_of(path, identity, written.plan) as tables:
        if tables is None:
            return written
        listed: dict[str, set[bytes]] = {}
        for connection, backend in moves:
            if backend is not None:
                name = connection_moves.SETS[len(backend.ip)]
                listed.setdefault(name, set()).add(connection_moves.element(connection, backend))
        if listed:
            written = _put_moved(tables, table, written, listed)
    fd = netns.open_same(path, identity)
    if fd is not None:
        with netns.closing(fd):
            conntrack.forget_connections(fd, [connection[:4] for connection, to in moves if to])
            waiting_sockets.end(
                fd, [connection for connection, backend in moves if backend is None]
            )
    return written


def _put_moved(
    tables: NftTables, table: Table, written: WrittenTable, listed: Mapping[str, set[bytes]]
) -> WrittenTable:
    """Add elements, in place of former ones of the same connections; the table stays as it was."""
    former = {}
    for name, elements in listed.items():
        key_size = next(each.key_size for each in table.sets if each.name == name)
        keys = {each[:key_size] for each in elements}
        known = tables.elements_of(table, name)
        former[name] = frozenset(each for each in known if each[:key_size] in keys)
    generation = tables.generation()
    state = written.plan.digest + _NATIVE.pack(generation + 1 & 0xFFFFFFFF)
    put, gone = {STATE: frozenset([state])}, {STATE: frozenset([written.state])}
    added = put_elements(table, {name: frozenset(each) for name, each in listed.items()}, KEPT_MS)
    tables.change(table, put, {**former, **gone}, added)
    after = tables.generation()
    is_alone = written.generation == generation and state.endswith(_NATIVE.pack(after))
    return WrittenTable(written.plan, state, after if is_alone else None)


def _state_left(tables: NftTables, table: Table) -> bytes:
    """Return what the table of a former agent says about itself; empty without one."""
    with suppress(FileNotFoundError, LargeDumpError):
        return next(iter(tables.elements_of(table, STATE)), b"")
    return b""


def _contents(tables: NftTables, table: Table) -> Elements | None:
    """Return what is in a table; None if it is not this one, or has too much in it."""
    with suppress(FileNotFoundError, LargeDumpError):
        if tables.holds(table):
            return tables.elements(table)
    return None


def _matches(contents: Elements | None, plan: TablePlan) -> bool:
    if contents is None:
        return False
    return all(contents[name] == listed for name, listed in plan.elements().items())
