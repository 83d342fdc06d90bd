"""A host's disk: the agent's durable state, and snapshots of it.

Owns: records as an append-only journal with the floor rule.
Does not: interpret records.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from overlay.core.keys.rotation import Ring
from overlay.core.protocol.records import KeyId, Scope, Segment
from overlay.model import Card, Ip, NodeId
from overlay.sim.host.kernel import Container

FIRST_KEY = KeyId(0, 0)  # created together with the cluster
_FIRST_RING = Ring(frozenset({FIRST_KEY}), FIRST_KEY)
_JOURNAL_COMPACTED_AT = 4096


class AttachmentRow(NamedTuple):
    """A container's attachment to store, or to delete without a container."""

    endpoint_id: bytes
    container: Container | None


@dataclass(slots=True)
class Disk:
    """Durable state.

    The `base_` fields are shared by all hosts of a cluster that starts formed.
    """

    epoch: int = 0
    seeds: tuple[Ip, ...] = ()
    base_cards: dict[NodeId, Card] = field(default_factory=dict)
    base_segments: Sequence[Segment] = ()
    cards: dict[NodeId, Card] = field(default_factory=dict)
    journal: list[Segment] = field(default_factory=list)
    attachments: dict[bytes, Container] = field(default_factory=dict)  # by endpoint id
    ring: Ring = _FIRST_RING
    holds_authority: bool = False
    _compact_at: int = _JOURNAL_COMPACTED_AT

    def next_epoch(self) -> int:
        """Increment and return the start counter."""
        self.epoch += 1
        return self.epoch

    def put_cards(self, cards: Iterable[Card]) -> None:
        """Store cards; a card replaces an older one of its node."""
        for card in cards:
            held = self.cards.get(card.node_id)
            if held is None or held.epoch < card.epoch:
                self.cards[card.node_id] = card

    def put_segments(self, segments: Iterable[Segment]) -> None:
        """Store segments.

        Those that a later floor makes obsolete are removed in time.
        """
        self.journal.extend(segments)
        if len(self.journal) >= self._compact_at:
            self.journal = _compacted(self.journal)
            self._compact_at = max(_JOURNAL_COMPACTED_AT, 2 * len(self.journal))

    def put_rows(self, rows: Iterable[AttachmentRow | Ring]) -> None:
        """Store attachments, and the names of the cluster's keys."""
        for row in rows:
            if isinstance(row, Ring):
                self.ring = row
            elif row.container is None:
                self.attachments.pop(row.endpoint_id, None)
            else:
                self.attachments[row.endpoint_id] = row.container

    def drop_scope(self, scope: Scope) -> None:
        """Delete the records of a network that this host has left."""
        self.journal = [segment for segment in self.journal if segment.scope != scope]
        self.base_segments = [item for item in self.base_segments if item.scope != scope]

    def all_cards(self) -> list[Card]:
        """Return every stored card, in order of node id."""
        merged = {**self.base_cards, **self.cards}
        return [merged[node_id] for node_id in sorted(merged)]

    def all_segments(self) -> list[Segment]:
        """Return every stored segment, in order of version within each log."""
        kept = _compacted([*self.base_segments, *self.journal])
        return sorted(kept, key=lambda item: (item.origin, item.scope, item.upto))

    def snapshot(self) -> Disk:
        """Return a copy, for a later restoration from backup."""
        return Disk(
            self.epoch,
            self.seeds,
            self.base_cards,
            self.base_segments,
            dict(self.cards),
            list(self.journal),
            dict(self.attachments),
            self.ring,
            self.holds_authority,
        )


def _compacted(segments: Sequence[Segment]) -> list[Segment]:
    floors: dict[tuple[NodeId, Scope], int] = {}
    for segment in segments:
        log = (segment.origin, segment.scope)
        floors[log] = max(floors.get(log, 0), segment.floor)
    return [item for item in segments if item.upto > floors[item.origin, item.scope]]
