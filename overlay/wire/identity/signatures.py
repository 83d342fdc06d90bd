"""Signatures over what everyone must be able to believe: segments and cards.

Each kind of statement is signed under a context of its own, so that bytes of one kind can
never pass for the other's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from overlay.core.protocol.records import Entry, ForgottenNode, Scope, Segment
from overlay.errors import OverlayError, RemoteError
from overlay.model import Card, node_id_of
from overlay.wire.codec.records import pack_card, pack_segment, unpack_card, unpack_segment
from overlay.wire.identity.authority import TrustAnchor
from overlay.wire.identity.identity import Identity

SIGNATURE_SIZE = 64
_SEGMENT_CONTEXT = b"overlayd/1 segment\0"
_CARD_CONTEXT = b"overlayd/1 card\0"


class KeySigner:
    """Signs with one identity; checks anyone's (core.ports.Notary)."""

    def __init__(self, identity: Identity, anchor: TrustAnchor) -> None:
        self._identity = identity
        self.anchor = anchor
        self._keys: dict[bytes, Ed25519PublicKey] = {}

    def issue_segment(
        self, scope: Scope, floor: int, after: int, upto: int, entries: Sequence[Entry]
    ) -> Segment:
        """Return the segment of this node's own log, signed."""
        origin = self._identity.node_id
        kept = tuple(entries)
        raw = pack_segment(origin, scope, floor, after, upto, kept)
        signature = self._identity.sign(_SEGMENT_CONTEXT + raw)
        segment = Segment(origin, scope, floor, after, upto, kept, raw, signature)
        _require_acceptable(unpack_segment, segment)
        return segment

    def segment_size(self, entries: Sequence[Entry]) -> int:
        """Return an upper bound of the bytes a segment of these entries takes."""
        origin = self._identity.node_id
        if not entries:
            return len(pack_segment(origin, 2**24 - 1, 2**62, 2**62, 2**62 + 1, ())) + 64
        after = min(entry.version for entry in entries) - 1
        upto = max(entry.version for entry in entries)
        # Floor and start are packed at their largest, as they are not known here.
        body = pack_segment(origin, 2**24 - 1, 0, after, upto, tuple(entries))
        return len(body) + 18 + SIGNATURE_SIZE

    def verify_segment(self, segment: Segment, origin_card: Card) -> bool:
        """Say whether `origin_card`'s key signed the segment."""
        return segment.origin == origin_card.node_id and self._verify(
            origin_card.sign_key, segment.signature, _SEGMENT_CONTEXT + segment.raw
        )

    def issue_card(self, card: Card) -> Card:
        """Return this node's own card, signed."""
        raw = pack_card(card)
        signed = replace(card, raw=raw, signature=self._identity.sign(_CARD_CONTEXT + raw))
        _require_acceptable(unpack_card, signed)
        return signed

    def verify_card(self, card: Card) -> bool:
        """Say whether the card is signed by its own key, its node_id is that key's, and the
        authority certified it."""
        return self.anchor.verify_certificate(card) and self.is_signed_by_subject(card)

    def is_signed_by_subject(self, card: Card) -> bool:
        """Say whether the card is signed by its own key and its node_id is that key's."""
        return card.node_id == node_id_of(card.sign_key) and self._verify(
            card.sign_key, card.signature, _CARD_CONTEXT + card.raw
        )

    def verify_warrant(self, forgotten: ForgottenNode) -> bool:
        """Say whether the authority declared the node gone."""
        return self.anchor.verify_forgotten(forgotten)

    def _verify(self, sign_key: bytes, signature: bytes, message: bytes) -> bool:
        key = self._keys.get(sign_key)
        try:
            if key is None:
                key = Ed25519PublicKey.from_public_bytes(sign_key)
            key.verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        # Asked of members' keys alone, which are bounded: so is this.
        self._keys[sign_key] = key
        return True


def _require_acceptable(read: Callable[[bytes, bytes], object], made: Segment | Card) -> None:
    """Refuse to sign what no peer would take: a log is read in order, so that one such record
    would keep all that comes after it from everyone, for ever.

    Raises OverlayError; nothing has been written then.
    """
    try:
        taken = read(made.raw, made.signature) == made
    except RemoteError:
        taken = False
    if not taken:
        raise OverlayError(
            "what is to be written is nothing that the other nodes would take",
            why="read again, it is malformed or something else",
            hint="Nothing was changed. This is a defect of overlayd: please report what you asked",
        )
