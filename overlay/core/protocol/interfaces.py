"""Interfaces that the core requires of higher layers: signing, encoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from overlay.core.protocol.messages import Message
from overlay.core.protocol.records import Entry, ForgottenNode, Scope, Segment
from overlay.model import Card


class Codec(Protocol):
    """Converts messages to bytes. A payload is messages back to back."""

    def encode(self, message: Message) -> bytes:
        """Return the message's bytes, at most `limits.PAYLOAD_SIZE_MAX`."""

    def decode(self, payload: bytes) -> list[Message]:
        """Return the messages of a payload.

        Raises RemoteError on anything that `encode` would not have written.
        """


class Signer(Protocol):
    """Signs this node's statements, and verifies those of other nodes."""

    def issue_segment(
        self, scope: Scope, floor: int, after: int, upto: int, entries: Sequence[Entry]
    ) -> Segment:
        """Return a signed segment of this node's own log.

        Fills `raw` and `signature`.
        """

    def segment_size(self, entries: Sequence[Entry]) -> int:
        """Return the size in bytes of such a segment, signature included."""

    def verify_segment(self, segment: Segment, origin_card: Card) -> bool:
        """Return whether `origin_card`'s key signed the segment."""

    def issue_card(self, card: Card) -> Card:
        """Return this node's own card with `raw` and `signature` filled."""

    def verify_card(self, card: Card) -> bool:
        """Return whether a card is authentic.

        It must be signed by its own key, have the node id of that key, and carry a certificate of
        the cluster's authority.
        """

    def verify_warrant(self, forgotten: ForgottenNode) -> bool:
        """Return whether the authority signed that the node is forgotten."""
