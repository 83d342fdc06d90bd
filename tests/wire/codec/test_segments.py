"""A segment's entries have the versions that it says, each once and in order."""

from __future__ import annotations

import pytest
from overlay.core.protocol.records import Entry, Participation, Scope, key_of
from overlay.errors import RemoteError
from overlay.model import NodeId
from overlay.wire.codec.segments import pack_segment, unpack_segment

ORIGIN, SCOPE = NodeId(b"o" * 16), Scope(7)
FIRST, SECOND = Participation(1, forwards=True), Participation(2, forwards=False)


def packed(*versions: int, after: int = 4, upto: int = 6) -> bytes:
    """Return the bytes of a segment whose first entry is a value, and all others deletions."""
    puts = [Entry(version, key_of(FIRST), FIRST) for version in versions[:1]]
    deletes = [Entry(version, key_of(SECOND), None) for version in versions[1:]]
    return pack_segment(ORIGIN, SCOPE, 0, after, upto, (*puts, *deletes))


def test_values_and_deletions_read_back() -> None:
    """The place of each says its version, and what it wrote says its key."""
    raw = packed(5, 6)
    segment = unpack_segment(raw, b"s" * 64)

    assert segment.written == (FIRST, key_of(SECOND))
    assert segment.entries == (Entry(5, key_of(FIRST), FIRST), Entry(6, key_of(SECOND), None))
    assert (segment.after, segment.upto, segment.raw) == (4, 6, raw)


@pytest.mark.parametrize("versions", [(), (5,), (6,), (5, 5), (6, 5), (6, 7), (5, 6, 7)])
def test_other_versions_are_refused(versions: tuple[int, ...]) -> None:
    """Missing, repeated, in another order, or beyond the end."""
    with pytest.raises(RemoteError):
        unpack_segment(packed(*versions), b"s" * 64)


def test_a_large_span_costs_nothing() -> None:
    """It is refused before it is counted."""
    with pytest.raises(RemoteError):
        unpack_segment(packed(5, upto=4 + 2**32), b"s" * 64)
