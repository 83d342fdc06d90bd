"""The cards and segments on disk, and their form there.

Owns: which of them can be used at a start, and what follows if this node's own cannot; when those
of other nodes are written. Does not: decide what this node writes (`service`).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypedDict, TypeVar

from overlay import limits
from overlay.agent.state import membership_documents
from overlay.agent.state.database import Floor, Row, StateDatabase, StoredCard, StoredSegment
from overlay.agent.state.membership_documents import LostState
from overlay.agent.state.state_file import PREVIOUS_NAME
from overlay.core.protocol.interfaces import Signer
from overlay.core.protocol.records import Scope, Segment
from overlay.errors import OverlayError, RemoteError
from overlay.model import Card, NodeId
from overlay.wire.codec.messages import MsgpackCodec

Read = TypeVar("Read", Card, Segment)
_LAZY_WRITE_S = 1.0
_DISK_RETRY_S = 5.0


@dataclass(slots=True)
class StoredRecords:
    """The usable records on disk; `lost_state` says that this node's own are not complete."""

    lost_state: LostState | None
    cards: list[Card] = field(default_factory=list)  # of other nodes
    segments: list[Segment] = field(default_factory=list)
    unreadable_count: int = 0


def read_records(
    state: StateDatabase, codec: MsgpackCodec, signer: Signer, own: Card
) -> StoredRecords:
    """Return the records on disk whose signatures are right.

    Another node's unusable record is skipped: peers resend it. So is one of this node's own, and
    the state counts as old from then on, durably. Raises OverlayError if there is such a record
    but no peer that could have it.
    """
    found = StoredRecords(membership_documents.LOST.find(state))
    for kept in state.cards():
        card = _read(found, codec.decode_card, kept.raw, kept.signature)
        if card is not None and card.node_id != own.node_id and signer.verify_card(card):
            found.cards.append(card)
    by_id = {card.node_id: card for card in (*found.cards, own)}
    for row in state.segments():
        segment = _read(found, codec.decode_segment, row.raw, row.signature)
        origin = None if segment is None else by_id.get(segment.origin)
        if segment is not None and origin and signer.verify_segment(segment, origin):
            found.segments.append(segment)
        elif row.origin == own.node_id:
            _note_own_damage(state, found)
    return found


def _read(
    found: StoredRecords, decode: Callable[[bytes, bytes], Read], raw: bytes, signature: bytes
) -> Read | None:
    try:
        return decode(raw, signature)
    except RemoteError:
        found.unreadable_count += 1
        return None


def _note_own_damage(state: StateDatabase, found: StoredRecords) -> None:
    if not found.cards:
        raise OverlayError(
            f"the state file {state.path} is damaged",
            why="one of this node's own records cannot be read, and no other node has it: either "
            "the disk is faulty, or a development version wrote it",
            hint=f"Move the file away: overlayd then starts from {PREVIOUS_NAME} beside it. "
            "Attached containers keep forwarding",
        )
    if found.lost_state is None:
        now_s = time.time()
        found.lost_state = LostState(
            "one of this node's own records in the state file is damaged", now_s, now_s
        )
        membership_documents.LOST.put(state, found.lost_state)


def stored_segment(segment: Segment) -> StoredSegment:
    """Return a segment's form on disk."""
    return StoredSegment(
        segment.origin, segment.scope, segment.upto, segment.raw, segment.signature
    )


def stored_card(card: Card) -> StoredCard:
    """Return a card's form on disk."""
    return StoredCard(card.node_id, card.raw, card.signature)


class UnsavedRecords:
    """Other nodes' records that are not on disk yet: they are written soon, many at once.

    If they are lost before, the next sync with other nodes brings them back. While the disk rejects
    writes the newest are kept, up to a bound, and written later; `status` shows the fault.
    """

    def __init__(self, state: StateDatabase) -> None:
        self._state = state
        self._segments: list[Segment] = []
        self._cards: list[Card] = []
        self._timer: asyncio.TimerHandle | None = None

    def add_segment(self, segment: Segment) -> None:
        """Write another node's segment, soon."""
        self._segments.append(segment)
        self._schedule()

    def add_card(self, card: Card) -> None:
        """Write another node's card, soon."""
        self._cards.append(card)
        self._schedule()

    def commit_with(self, rows: Iterable[Row], segments: Sequence[Segment]) -> None:
        """Write this node's own segments with rows of documents, and all that is unsaved.

        In one transaction, as an attachment without the record of its network would be lost.
        Raises OverlayError if the disk rejects it.
        """
        self._state.commit(rows, **_changes([*self._segments, *segments], self._cards))
        self._clear()

    def close(self) -> None:
        """Write what is unsaved, if the disk accepts it, and nothing later."""
        self._save()
        self._clear()

    def _schedule(self) -> None:
        if len(self._segments) >= limits.RECENT_EVENTS_MAX and not self._state.fault:
            self._save()
        elif self._timer is None:
            pause_s = _DISK_RETRY_S if self._state.fault else _LAZY_WRITE_S
            self._timer = asyncio.get_running_loop().call_later(pause_s, self._save)

    def _save(self) -> None:
        segments, cards = self._segments, self._cards
        self._clear()
        try:
            self._state.commit(**_changes(segments, cards))
        except OverlayError:
            self._segments = segments[-limits.RECENT_EVENTS_MAX :]
            self._cards = cards[-limits.RECENT_EVENTS_MAX :]
            self._schedule()

    def _clear(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._segments, self._cards = [], []


class _Changes(TypedDict):
    """Records to commit to the state file, as `StateDatabase.commit` takes them."""

    segments: list[StoredSegment]
    floors: list[Floor]
    cards: list[StoredCard]


def _changes(segments: Sequence[Segment], cards: Iterable[Card]) -> _Changes:
    """Return what stores records, and deletes the segments that they supersede."""
    floors: dict[tuple[NodeId, Scope], int] = {}
    for segment in segments:
        log = (segment.origin, segment.scope)
        floors[log] = max(floors.get(log, 0), segment.floor)
    return {
        "segments": [*map(stored_segment, segments)],
        "floors": [Floor(*log, upto) for log, upto in floors.items() if upto],
        "cards": [*map(stored_card, cards)],
    }
