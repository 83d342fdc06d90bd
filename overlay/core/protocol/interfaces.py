"""What the core needs of the layers above it, as protocols: signing and encoding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from overlay.core.protocol.messages import Message
from overlay.core.protocol.records import Entry, ForgottenNode, Scope, Segment
from overlay.model import Card


class Codec(Protocol):
    """Turns messages into bytes. A payload is messages back to back."""

    def encode(self, message: Message) -> bytes:
        """Return the message's bytes, at most `limits.PAYLOAD_SIZE_MAX`."""

    def decode(self, payload: bytes) -> list[Message]:
        """Return the payload's messages; raises RemoteError on anything not exactly right."""


class Signer(Protocol):
    """Signs what this node says, and checks what others are said to have said."""

    def issue_segment(
        self, scope: Scope, floor: int, after: int, upto: int, entries: Sequence[Entry]
    ) -> Segment:
        """Return the segment of this node's own log, with `raw` and `signature` filled."""

    def segment_size(self, entries: Sequence[Entry]) -> int:
        """Return how many bytes a segment of these entries takes, signature included."""

    def verify_segment(self, segment: Segment, origin_card: Card) -> bool:
        """Say whether `origin_card`'s key signed the segment."""

    def issue_card(self, card: Card) -> Card:
        """Return this node's own card with `raw` and `signature` filled."""

    def verify_card(self, card: Card) -> bool:
        """Say whether the card is signed by its own key, its node_id is that key's, and the
        cluster's authority certified it."""

    def verify_warrant(self, forgotten: ForgottenNode) -> bool:
        """Say whether the cluster's authority declared the node gone for ever."""
