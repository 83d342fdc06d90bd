"""Documents of one kind in the state database, and their form as JSON."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any, Generic, TypeVar

from overlay.agent.state.database import Row, StateDatabase

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Table(Generic[T]):
    """All documents of one kind.

    `key` names a document among those of its kind; `encode` and `decode` convert it to JSON and
    back. Earlier versions wrote the same kinds, keys and JSON: none of them may change.
    """

    kind: str
    key: Callable[[T], str]
    encode: Callable[[T], Any]
    decode: Callable[[str, Any], T]  # from the key and the JSON value

    def load(self, state: StateDatabase) -> list[T]:
        """Return all documents, in order of their keys."""
        return [self.decode(key, value) for key, value in state.all(self.kind).items()]

    def find(self, state: StateDatabase, key: str = "") -> T | None:
        """Return the document with this key, or None."""
        value = state.get(self.kind, key)
        return None if value is None else self.decode(key, value)

    def row(self, document: T) -> Row:
        """Return the row that stores a document, for `StateDatabase.commit`."""
        return Row.of(self.kind, self.key(document), self.encode(document))

    def deletion(self, key: str = "") -> Row:
        """Return the row that deletes the document with this key."""
        return Row(self.kind, key, None)

    def deletion_of(self, document: T) -> Row:
        """Return the row that deletes a document."""
        return self.deletion(self.key(document))

    def put(self, state: StateDatabase, document: T) -> None:
        """Store a document in its own transaction; raises OverlayError if the disk refuses."""
        state.commit([self.row(document)])

    def drop(self, state: StateDatabase, key: str = "") -> None:
        """Delete a document in its own transaction; raises OverlayError if the disk refuses."""
        state.commit([self.deletion(key)])


def single(kind: str, encode: Callable[[T], Any], decode: Callable[[Any], T]) -> Table[T]:
    """Return the table of a kind that has one document at most."""
    return Table(kind, lambda _: "", encode, lambda _, value: decode(value))


def without_empty(document: Any, *later: str) -> dict[str, Any]:
    """Return a document's fields without those of `later` that are empty.

    They came later than the others: an earlier version reads what has none of them. Their values
    are JSON's own, and so need none of the copies that `asdict` makes.
    """
    named = ((each.name, getattr(document, each.name)) for each in fields(document))
    return {name: value for name, value in named if value or name not in later}
