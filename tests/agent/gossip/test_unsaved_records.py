"""When other nodes' records are written, and what a disk that rejects them loses."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest
from overlay import limits
from overlay.agent.gossip import stored_records
from overlay.agent.gossip.stored_records import UnsavedRecords
from overlay.agent.state.database import StateDatabase
from overlay.core.protocol.records import CLUSTER_SCOPE, Segment
from overlay.errors import OverlayError
from overlay.model import NodeId
from tests.agent.conftest import until

OTHER, OWN = NodeId(b"x" * 16), NodeId(b"o" * 16)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[StateDatabase]:
    """Return an empty state file."""
    opened = StateDatabase(tmp_path)
    yield opened
    opened.close()


def segment(number: int, origin: NodeId = OTHER) -> Segment:
    """Return the segment with that number of a log."""
    return Segment(origin, CLUSTER_SCOPE, 0, number - 1, number, (), b"raw", b"signature")


def written(state: StateDatabase) -> list[tuple[NodeId, int]]:
    """Return the segments on disk."""
    return [(NodeId(each.origin), each.upto) for each in state.segments()]


async def test_own_segments_are_written_with_all_that_waits(state: StateDatabase) -> None:
    """A record that this node writes may depend on one that it has just received."""
    unsaved = UnsavedRecords(state)
    unsaved.add_segment(segment(1))
    assert written(state) == []

    unsaved.commit_with((), [segment(1, OWN)])

    assert sorted(written(state)) == [(OWN, 1), (OTHER, 1)]
    unsaved.close()


async def test_records_are_written_soon_and_at_the_end(
    state: StateDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a timer, and by the close, after which none is left."""
    monkeypatch.setattr(stored_records, "_LAZY_WRITE_S", 0.0)
    unsaved = UnsavedRecords(state)
    unsaved.add_segment(segment(1))
    await until(lambda: bool(written(state)), 60.0)
    monkeypatch.setattr(stored_records, "_LAZY_WRITE_S", 1_000.0)
    unsaved.add_segment(segment(2))
    assert written(state) == [(OTHER, 1)]

    unsaved.close()

    assert written(state) == [(OTHER, 1), (OTHER, 2)]


async def test_a_disk_that_rejects_writes_loses_only_the_oldest(
    state: StateDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The newest are kept, up to a bound, and written when the disk accepts them again."""
    monkeypatch.setattr(limits, "RECENT_EVENTS_MAX", 2)
    monkeypatch.setattr(stored_records, "_DISK_RETRY_S", 0.0)
    monkeypatch.setattr(stored_records, "_LAZY_WRITE_S", 1_000.0)
    unsaved = UnsavedRecords(state)
    with monkeypatch.context() as full:
        full.setattr(state, "commit", _refuse)
        full.setattr(state, "fault", "no space left")
        for number in range(1, 5):
            unsaved.add_segment(segment(number))
        await asyncio.sleep(0.01)  # the timer runs, and is set again
        assert written(state) == []
    await until(lambda: bool(written(state)), 60.0)

    assert written(state) == [(OTHER, 3), (OTHER, 4)]
    unsaved.close()


def _refuse(*_: object, **__: object) -> None:
    raise OverlayError("no space left")
