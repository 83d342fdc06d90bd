"""Numbers of changes, and which records have changed lately."""

from __future__ import annotations

import pytest
from overlay import limits
from overlay.core.log.change_journal import ChangeJournal
from overlay.core.protocol.records import Key, Scope
from overlay.model import NodeId

SCOPE, OTHER = Scope(9), Scope(10)
A, B = NodeId(b"a" * 16), NodeId(b"b" * 16)


def key(number: int, kind: str = "endpoint") -> Key:
    """Return the key of a record."""
    return (kind, bytes([number]))


def test_the_records_changed_since_a_number_are_known() -> None:
    """Each once, in order, whatever changes in other scopes and kinds."""
    journal = ChangeJournal()
    journal.note(SCOPE, A, key(1))
    count = journal.count(SCOPE, "endpoint")
    for origin, number in ((A, 2), (B, 3), (A, 2)):
        journal.note(SCOPE, origin, key(number))
        journal.note(OTHER, origin, key(9))
        journal.note(SCOPE, origin, key(9, "grant"))

    assert journal.since(SCOPE, "endpoint", count) == [(A, key(2)), (B, key(3))]
    assert journal.since(SCOPE, "endpoint", journal.count(SCOPE, "endpoint")) == []
    assert journal.since(SCOPE, "grant", 0) is None  # a kind that is only counted
    assert journal.count(SCOPE, "grant") == 3


def test_what_is_no_longer_remembered_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal is bounded, and a change of many records at once has no keys."""
    monkeypatch.setattr(limits, "CHANGES_REMEMBERED_MAX", 2)
    journal = ChangeJournal()
    for number in range(3):
        journal.note(SCOPE, A, key(number))
    assert journal.since(SCOPE, "endpoint", 0) is None
    assert journal.since(SCOPE, "endpoint", 1) == [(A, key(1)), (A, key(2))]
    journal.note_many(SCOPE, "endpoint")
    assert journal.since(SCOPE, "endpoint", 3) is None
    journal.note(SCOPE, A, key(4))
    assert journal.since(SCOPE, "endpoint", 4) == [(A, key(4))]
