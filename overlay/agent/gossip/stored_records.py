"""The cards and segments on disk, and their form there.

Owns: which of them can be used at a start, and what follows if this node's own cannot. Does not:
write them (`service`).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from overlay.agent.state import membership_documents
from overlay.agent.state.database import StateDatabase, StoredCard, StoredSegment
from overlay.agent.state.membership_documents import LostState
from overlay.agent.state.state_file import PREVIOUS_NAME
from overlay.core.protocol.interfaces import Signer
from overlay.core.protocol.records import Segment
from overlay.errors import OverlayError, RemoteError
from overlay.model import Card
from overlay.wire.codec.messages import MsgpackCodec

Read = TypeVar("Read", Card, Segment)


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
