"""One log: the room that its live entries take, which decides when its writer cleans it."""

from __future__ import annotations

import random
from typing import Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from overlay.core.log.live_entries import LiveEntries
from overlay.core.log.log import Log
from overlay.core.log.store import Store
from overlay.core.log.writer import LogWriter
from overlay.core.protocol.records import CustomRecord, Key, Scope, Value, key_of
from overlay.model import Card, Ip, NodeId, node_id_of
from overlay.sim.environment.notary import FakeSigner

KEY = b"o" * 32
ORIGIN, SCOPE = node_id_of(KEY), Scope(7)
CARD = Card(ORIGIN, "o", KEY, KEY, Ip(b"\x0a\x00\x00\x01"), 7948, 1, 1500, "test")


def record(name: int, size: int) -> CustomRecord:
    """Return a record of a name with that many addresses."""
    return CustomRecord(
        f"n{name}", tuple(Ip(bytes([10, 0, 0, each])) for each in range(1, 1 + size))
    )


class Written:
    """A log that is written, and a replica of it."""

    def __init__(self) -> None:
        self.stores = [Store(ORIGIN), Store(NodeId(b"r" * 16))]
        for store in self.stores:
            store.accept_card(CARD)
        self._writer = LogWriter(self.stores[0], FakeSigner(KEY))

    def write(self, name: int, size: int, *, arrives: bool = True) -> None:
        """Put a record of that size; delete it if that is 0."""
        puts = [record(name, size)] if size else []
        for segment in self._writer.write(SCOPE, puts, [] if size else [key_of(record(name, 1))]):
            for store in self.stores[: 2 if arrives else 1]:
                store.accept(segment)

    def catch_up(self) -> None:
        """Send the replica what it lacks."""
        held = self.stores[1].version(ORIGIN, SCOPE)
        for segment in self.stores[0].segments_beyond(ORIGIN, SCOPE, held):
            self.stores[1].accept(segment)

    def logs(self) -> list[Log]:
        """Return the log as both hold it."""
        found = (store.log(ORIGIN, SCOPE) for store in self.stores)
        return [log for log in found if log is not None]


def live_sizes(log: Log) -> list[int]:
    """Return the size of each live value, as a part of its segment."""
    return [
        max(0, len(segment.raw) - 40) // len(segment.entries)
        for segment in log.segments
        for entry in segment.entries
        if entry.value is not None and log.live.get(entry.key) is entry.value
    ]


GAP: Final = [
    (0, 1, True),
    *(((0, 0, False), (0, 1, False)) * 5),
    (0, 2, False),
    *(((0, 0, False), (0, 1, False)) * 3),
    *((0, 0, False), (0, 1, True)),
]
"""Writes after which a replica lacks a segment below one that has raised the floor."""


@settings(max_examples=30)
@example(GAP)
@given(
    st.lists(
        st.tuples(st.integers(0, 6), st.integers(0, 8), st.booleans()), min_size=1, max_size=120
    )
)
def test_live_values_are_found(writes: list[tuple[int, int, bool]]) -> None:
    """Whatever is written, rewritten, deleted and cleaned, and whatever a replica has missed.

    One that continues from a floor keeps the values of before, whose segments are gone, until it
    has what raised that.
    """
    written = Written()
    for name, size, arrives in writes:
        written.write(name, size, arrives=arrives)
        for log in written.logs():
            known = len(live_sizes(log))
            assert len(log.live) >= known if log.early else len(log.live) == known
    written.catch_up()
    logs = written.logs()
    assert len({(log.live_size(), len(log.segments)) for log in logs}) <= 1
    assert all(dict(log.live) == dict(logs[0].live) for log in logs)


@pytest.mark.parametrize("size", [1, 100])
def test_the_size_of_live_values_is_known(size: int) -> None:
    """Approximately, where half of the writes are of other values, and others are deletions."""
    written = Written()
    for name in range(20):
        written.write(name, size)
        written.write(name + 100, size)
        written.write(name + 100, 0)
    (log, _) = written.logs()

    assert len(log.live) == 20
    assert log.live_size() == pytest.approx(sum(live_sizes(log)), rel=0.1)


def test_a_write_into_a_large_log_looks_at_no_other_record(monkeypatch: pytest.MonkeyPatch) -> None:
    """A host with thousands of endpoints attaches one as fast as the first."""
    written, rng = Written(), random.Random(1)
    for name in range(300):
        written.write(name, rng.randint(1, 8))
    (log, _) = written.logs()
    looked: list[Key] = []
    get = LiveEntries.__getitem__

    def noting(self: LiveEntries, key: Key) -> Value:
        looked.append(key)
        return get(self, key)

    monkeypatch.setattr(LiveEntries, "__getitem__", noting)
    written.write(1000, 1)

    assert len(log.live) == 301
    assert len(looked) < 20
