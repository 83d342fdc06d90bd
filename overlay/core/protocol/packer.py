"""Pack segments, cards and log versions into messages that fit a payload."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from overlay import limits
from overlay.core.protocol.messages import Cards, Delta, LogVersion
from overlay.core.protocol.records import Segment
from overlay.model import Card

# msgpack's own framing: an array head and two byte-string heads for each signed thing, and the
# message's number, array head and flag around them all.
_SIGNED_FRAMING_SIZE = 8
_MESSAGE_FRAMING_SIZE = 12
# 16 bytes of origin, numbers of up to 9 (version), 5 (scope) and 5 (epoch), heads.
_LOG_VERSION_SIZE = 16 + 9 + 5 + 5 + 5
LOG_VERSIONS_PER_MESSAGE = (limits.PAYLOAD_SIZE_MAX - 128) // _LOG_VERSION_SIZE


def deltas(segments: Iterable[Segment], *, confirm: bool = False) -> Iterator[Delta]:
    """Yield Delta messages with all the segments, each within a payload."""
    batch: list[Segment] = []
    size = _MESSAGE_FRAMING_SIZE
    for segment in segments:
        more = len(segment.raw) + len(segment.signature) + _SIGNED_FRAMING_SIZE
        if batch and size + more > limits.PAYLOAD_SIZE_MAX:
            yield Delta(tuple(batch), confirm)
            batch, size = [], _MESSAGE_FRAMING_SIZE
        batch.append(segment)
        size += more
    if batch:
        yield Delta(tuple(batch), confirm)


def card_messages(cards: Iterable[Card]) -> Iterator[Cards]:
    """Yield Cards messages with all the cards, each within a payload."""
    batch: list[Card] = []
    size = _MESSAGE_FRAMING_SIZE
    for card in cards:
        more = len(card.raw) + len(card.signature) + _SIGNED_FRAMING_SIZE
        if batch and size + more > limits.PAYLOAD_SIZE_MAX:
            yield Cards(tuple(batch))
            batch, size = [], _MESSAGE_FRAMING_SIZE
        batch.append(card)
        size += more
    if batch:
        yield Cards(tuple(batch))


def pages(versions: list[LogVersion]) -> Iterator[tuple[LogVersion, ...]]:
    """Yield the versions in pages that fit one message each."""
    for start in range(0, len(versions), LOG_VERSIONS_PER_MESSAGE):
        yield tuple(versions[start : start + LOG_VERSIONS_PER_MESSAGE])
