"""The send queue: segments, cards and versions packed into messages, messages into payloads.

Owns: order, bounds and packing. Does not: know what the messages mean. Room left in a payload is
offered to one `piggyback` source, the membership updates (SWIM section 4.1).
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from overlay import limits
from overlay.core.protocol.interfaces import Codec
from overlay.core.protocol.messages import Cards, Delta, LogVersion, Message
from overlay.core.protocol.records import Segment
from overlay.model import Card, NodeId

# msgpack's own framing: an array head and two byte-string heads for each signed thing, and the
# message's number, array head and flag around them all.
_SIGNED_FRAMING_SIZE = 8
_MESSAGE_FRAMING_SIZE = 12
# 16 bytes of origin, numbers of up to 9 (version), 5 (scope) and 5 (epoch), heads.
_LOG_VERSION_SIZE = 16 + 9 + 5 + 5 + 5
LOG_VERSIONS_PER_MESSAGE = (limits.PAYLOAD_SIZE_MAX - 128) // _LOG_VERSION_SIZE


class Priority(enum.IntEnum):
    """Which messages are sent first and, in a full queue, dropped last."""

    PROBE = 0
    OWN = 1
    RELAYED = 2
    REPAIR = 3


class Outgoing(NamedTuple):
    """One payload for one peer: messages back to back, not sealed yet."""

    to: NodeId
    payload: bytes


class PiggybackSource(Protocol):
    """Has news that may ride on datagrams that leave anyway (SWIM section 4.1)."""

    def piggyback(self, to: NodeId, room: int) -> list[bytes]:
        """Return encoded messages for a peer, together at most `room` bytes."""


class _Waiting(NamedTuple):
    priority: Priority
    message: Message


@dataclass(slots=True)
class _Payload:
    parts: list[bytes]
    size: int


class Outbox:
    """The messages of one node that wait to be sent."""

    def __init__(self, codec: Codec) -> None:
        self.dropped_count = 0
        self.codec = codec
        self._queues: dict[NodeId, list[_Waiting]] = {}
        self._message_count = 0

    def __len__(self) -> int:
        return self._message_count

    def put(self, to: NodeId, message: Message, priority: Priority) -> bool:
        """Queue a message; return False if it was dropped.

        A full queue drops its newest message of the least urgent priority in favour of a more
        urgent one, else the new message. Messages of one priority to one peer keep their order.
        """
        queue = self._queues.setdefault(to, [])
        full = len(queue) >= limits.OUTBOX_MESSAGES_PER_PEER_MAX
        if full or self._message_count >= limits.OUTBOX_MESSAGES_MAX:
            self.dropped_count += 1
            least = max(range(len(queue)), key=lambda at: (queue[at].priority, at), default=None)
            if least is None or queue[least].priority <= priority:
                return False
            del queue[least]
            self._message_count -= 1
        queue.append(_Waiting(priority, message))
        self._message_count += 1
        return True

    def put_segments(
        self, to: NodeId, segments: Iterable[Segment], priority: Priority, *, confirm: bool = False
    ) -> None:
        """Queue segments, in order; with `confirm` the peer answers once its kernel has them."""
        for message in deltas(segments, confirm=confirm):
            self.put(to, message, priority)

    def offer_room(self, to: NodeId) -> None:
        """Let the piggyback source send to `to` in the next `drain`.

        Also where no message is queued for it.
        """
        self._queues.setdefault(to, [])

    def forget(self, to: NodeId) -> None:
        """Drop the messages for a peer that is gone."""
        self._message_count -= len(self._queues.pop(to, ()))

    def drain(self, piggyback: PiggybackSource | None = None) -> list[Outgoing]:
        """Empty the queue and return its messages, packed into payloads.

        Each payload is at most `limits.PAYLOAD_SIZE_MAX` bytes. A larger message is a defect of
        this program, not of a peer, and is asserted. `piggyback` is called once for each peer, with
        the payload that has most room.
        """
        encoded: dict[int, bytes] = {}  # one message to many peers is encoded once
        outgoing = []
        for to, queue in self._queues.items():
            payloads = self._pack(queue, encoded)
            if piggyback is not None:
                _fill(to, payloads, piggyback)
            outgoing += [Outgoing(to, b"".join(one.parts)) for one in payloads if one.parts]
        self._queues.clear()
        self._message_count = 0
        return outgoing

    def _pack(self, queue: list[_Waiting], encoded: dict[int, bytes]) -> list[_Payload]:
        payloads = [_Payload([], 0)]
        if len(queue) > 1:
            queue.sort(key=lambda waiting: waiting.priority)
        for _, message in queue:
            part = encoded.get(id(message))
            if part is None:
                part = encoded[id(message)] = self.codec.encode(message)
                assert len(part) <= limits.PAYLOAD_SIZE_MAX, f"too large: {message}"
            if payloads[-1].size + len(part) > limits.PAYLOAD_SIZE_MAX:
                payloads.append(_Payload([], 0))
            payloads[-1].parts.append(part)
            payloads[-1].size += len(part)
        return payloads


def _fill(to: NodeId, payloads: list[_Payload], source: PiggybackSource) -> None:
    roomiest = min(payloads, key=lambda payload: payload.size)
    room = limits.PAYLOAD_SIZE_MAX - roomiest.size
    parts = source.piggyback(to, room)
    assert sum(map(len, parts)) <= room, "the piggyback source exceeded its room"
    roomiest.parts += parts


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
