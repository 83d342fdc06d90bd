"""The real codec, with each distinct thing decoded once for the whole cluster.

Owns: the sharing. Every host gets what the real decoder made of the real bytes; as messages
are frozen values, a thousand receivers of one segment may hold the same one, which saves the
memory and the time of a thousand. Corrupted bytes are decoded too, to see that the decoder
refuses them as it should; what comes out is dropped, as the seal would have had it.
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
    """core.protocol.interfaces.Codec for all hosts of one cluster."""

    def __init__(self) -> None:
        super().__init__()
        self._known_segments: dict[tuple[bytes, bytes], Segment] = {}
        self._known_cards: dict[tuple[bytes, bytes], Card] = {}

    def decode_segment(self, raw: bytes, signature: bytes) -> Segment:
        """Return the segment; the same one for the same bytes."""
        known = self._known_segments.get((raw, signature))
        if known is None:
            if len(self._known_segments) >= _SHARED_MAX:
                self._known_segments.clear()
            known = super().decode_segment(raw, signature)
            self._known_segments[known.raw, known.signature] = known
        return known

    def decode_card(self, raw: bytes, signature: bytes) -> Card:
        """Return the card; the same one for the same bytes."""
        known = self._known_cards.get((raw, signature))
        if known is None:
            if len(self._known_cards) >= _SHARED_MAX:
                self._known_cards.clear()
            known = super().decode_card(raw, signature)
            self._known_cards[known.raw, known.signature] = known
        return known

    def survive(self, payload: bytes, rng: random.Random) -> list[Message]:
        """Decode a broken copy of the payload: it may only refuse, or make sense of it."""
        broken = bytearray(payload)
        for _ in range(rng.randint(1, 4)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        if rng.random() < 0.3:
            del broken[rng.randrange(len(broken)) :]
        try:
            return self.decode(bytes(broken))
        except RemoteError:
            return []
