"""Signatures of segments and cards.

Each kind of statement is signed under a context of its own, so that bytes of one kind can never
pass for another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from overlay.core.protocol.records import Entry, ForgottenNode, Scope, Segment
from overlay.errors import OverlayError, RemoteError
from overlay.model import Card, node_id_of
from overlay.wire.codec.cards import pack_card, unpack_card
from overlay.wire.codec.segments import pack_segment, unpack_segment
from overlay.wire.identity.authority import TrustAnchor
from overlay.wire.identity.identity import Identity

SIGNATURE_SIZE = 64
_SEGMENT_CONTEXT = b"overlayd/1 segment\0"
_CARD_CONTEXT = b"overlayd/1 card\0"


class KeySigner:
    """Signs with one identity; verifies every other one.

    Implements core.protocol.interfaces.Signer.
    """

    def __init__(self, identity: Identity, anchor: TrustAnchor) -> None:
        self._identity = identity
        self.anchor = anchor
        self._keys: dict[bytes, Ed25519PublicKey] = {}

    def issue_segment(
        self, scope: Scope, floor: int, after: int, upto: int, entries: Sequence[Entry]
    ) -> Segment:
        """Return a signed segment of this node's own log."""
        origin = self._identity.node_id
        kept = tuple(entries)
        raw = pack_segment(origin, scope, floor, after, upto, kept)
        signature = self._identity.sign(_SEGMENT_CONTEXT + raw)
        written = tuple(entry.written for entry in kept)
        segment = Segment(origin, scope, floor, after, upto, written, raw, signature)
        _require_acceptable(unpack_segment, segment)
        return segment

    def segment_size(self, entries: Sequence[Entry]) -> int:
        """Return an upper bound of such a segment's size in bytes."""
        origin = self._identity.node_id
        if not entries:
            return len(pack_segment(origin, 2**24 - 1, 2**62, 2**62, 2**62 + 1, ())) + 64
        after = min(entry.version for entry in entries) - 1
        upto = max(entry.version for entry in entries)
        # Floor and start are unknown here, so they are packed at their largest.
        body = pack_segment(origin, 2**24 - 1, 0, after, upto, tuple(entries))
        return len(body) + 18 + SIGNATURE_SIZE

    def verify_segment(self, segment: Segment, origin_card: Card) -> bool:
        """Return whether `origin_card`'s key signed the segment."""
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
        """Return whether a card is authentic.

        It must be signed by its own key, have the node id of that key, and be certified by the
        authority.
        """
        return self.anchor.verify_certificate(card) and self.is_signed_by_subject(card)

    def is_signed_by_subject(self, card: Card) -> bool:
        """Return whether a card is signed by its own key, with that key's id."""
        return card.node_id == node_id_of(card.sign_key) and self._verify(
            card.sign_key, card.signature, _CARD_CONTEXT + card.raw
        )

    def verify_warrant(self, forgotten: ForgottenNode) -> bool:
        """Return whether the authority declared the node forgotten."""
        return self.anchor.verify_forgotten(forgotten)

    def _verify(self, sign_key: bytes, signature: bytes, message: bytes) -> bool:
        key = self._keys.get(sign_key)
        try:
            if key is None:
                key = Ed25519PublicKey.from_public_bytes(sign_key)
            key.verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        # Only members' keys are verified, and they are bounded, so the cache is.
        self._keys[sign_key] = key
        return True


def _require_acceptable(read: Callable[[bytes, bytes], object], signed: Segment | Card) -> None:
    """Refuse to sign what no peer would accept.

    A log is read in order, so one such record would keep all that comes after it from every node,
    permanently. Raises OverlayError; nothing has been written then.
    """
    try:
        accepted = read(signed.raw, signed.signature) == signed
    except RemoteError:
        accepted = False
    if not accepted:
        raise OverlayError(
            "the record was not written, because other nodes would reject it",
            why="once encoded, it is malformed or differs from what was meant",
            hint="Nothing was changed. This is a defect of overlayd: please report the request",
        )
