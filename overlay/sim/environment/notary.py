"""A notary that signs by cheap keyed hashes instead of Ed25519.

A real verification takes 100 microseconds, and a simulated cluster needs millions. Sizes, checks
and the signed bytes are those of the real notary. The "key" is public, so this proves nothing about
forgery; the real notary's tests do.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from overlay.core.protocol.records import Entry, ForgottenNode, Scope, Segment
from overlay.model import Card, node_id_of
from overlay.wire.codec.cards import pack_card
from overlay.wire.codec.segments import pack_segment

SIGNATURE_SIZE: Final = 64
_VERSION_SIZE_MAX: Final = 9  # a 64-bit integer in msgpack


class FakeSigner:
    """Implements `core.protocol.interfaces.Signer` for one node."""

    def __init__(self, sign_key: bytes) -> None:
        self._sign_key = sign_key
        self._node_id = node_id_of(sign_key)

    def issue_segment(
        self, scope: Scope, floor: int, after: int, upto: int, entries: Sequence[Entry]
    ) -> Segment:
        """Return a signed segment of this node's own log."""
        kept = tuple(entries)
        raw = pack_segment(self._node_id, scope, floor, after, upto, kept)
        signature = _signed(self._sign_key, raw)
        written = tuple(entry.written for entry in kept)
        return Segment(self._node_id, scope, floor, after, upto, written, raw, signature)

    def segment_size(self, entries: Sequence[Entry]) -> int:
        """Return an upper bound of a segment's size in bytes."""
        after = min((entry.version for entry in entries), default=1) - 1
        upto = max((entry.version for entry in entries), default=1)
        body = pack_segment(self._node_id, Scope(2**24 - 1), 0, after, upto, tuple(entries))
        return len(body) + 2 * _VERSION_SIZE_MAX + SIGNATURE_SIZE

    def verify_segment(self, segment: Segment, origin_card: Card) -> bool:
        """Return whether `origin_card`'s key signed the segment."""
        return (
            segment.origin == origin_card.node_id
            and _signed(origin_card.sign_key, segment.raw) == segment.signature
        )

    def issue_card(self, card: Card) -> Card:
        """Return this node's card, signed."""
        raw = pack_card(card)
        return replace(card, raw=raw, signature=_signed(self._sign_key, raw))

    def verify_card(self, card: Card) -> bool:
        """Return whether the card's own key signed it and fits its node_id."""
        return (
            card.node_id == node_id_of(card.sign_key)
            and _signed(card.sign_key, card.raw) == card.signature
        )

    def verify_warrant(self, forgotten: ForgottenNode) -> bool:
        """Return whether there is a warrant; it is not verified."""
        return bool(forgotten.warrant)


def _signed(sign_key: bytes, raw: bytes) -> bytes:
    return hashlib.blake2b(raw, key=sign_key, digest_size=SIGNATURE_SIZE).digest()
