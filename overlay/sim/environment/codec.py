"""The real codec, with a cache shared by all hosts.

Every host gets the real decoder's result for the real bytes. Messages are immutable, so a thousand
receivers of one segment can share one object, which saves memory and time. Corrupted bytes are
decoded too, to test that the decoder rejects them; the result is discarded, as the seal would not
have opened.
"""

from __future__ import annotations

import random
from typing import Final

from overlay.core.protocol.messages import Message
from overlay.core.protocol.records import Segment
from overlay.errors import RemoteError
from overlay.model import Card
from overlay.wire.codec.messages import MsgpackCodec

_SHARED_MAX: Final = 65_536


class SharingCodec(MsgpackCodec):
    """Implements `core.protocol.interfaces.Codec` for all hosts."""

    def __init__(self) -> None:
        super().__init__()
        self._known_segments: dict[tuple[bytes, bytes], Segment] = {}
        self._known_cards: dict[tuple[bytes, bytes], Card] = {}

    def decode_segment(self, raw: bytes, signature: bytes) -> Segment:
        """Return the segment; equal bytes give the same object.

        Raises RemoteError.
        """
        known = self._known_segments.get((raw, signature))
        if known is None:
            if len(self._known_segments) >= _SHARED_MAX:
                self._known_segments.clear()
            known = super().decode_segment(raw, signature)
            self._known_segments[known.raw, known.signature] = known
        return known

    def decode_card(self, raw: bytes, signature: bytes) -> Card:
        """Return the card; equal bytes give the same object. Raises RemoteError."""
        known = self._known_cards.get((raw, signature))
        if known is None:
            if len(self._known_cards) >= _SHARED_MAX:
                self._known_cards.clear()
            known = super().decode_card(raw, signature)
            self._known_cards[known.raw, known.signature] = known
        return known

    def survive(self, payload: bytes, rng: random.Random) -> list[Message]:
        """Decode a corrupted copy of the payload.

        The codec must reject it or return messages.
        """
        broken = bytearray(payload)
        for _ in range(rng.randint(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        if rng.random() < 0.3:
            del broken[rng.randrange(len(broken)) :]
        try:
            return self.decode(bytes(broken))
        except RemoteError:
            return []
