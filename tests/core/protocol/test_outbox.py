"""The outbox: order, bounds, packing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay import limits
from overlay.core.protocol.messages import Message, Nack, PingRequest
from overlay.core.protocol.outbox import Outbox, Outgoing, Priority
from overlay.model import NodeId

PEER = NodeId(b"p" * 16)
OTHER = NodeId(b"o" * 16)


class SizedCodec:
    """Encodes a Nack as so many bytes, and counts the encodings."""

    def __init__(self) -> None:
        self.encoded: list[Message] = []

    def encode(self, message: Message) -> bytes:
        """Return as many bytes as the Nack's sequence number."""
        assert isinstance(message, Nack)
        self.encoded.append(message)
        return message.sequence.to_bytes(2, "big").ljust(message.sequence, b".")

    def decode(self, payload: bytes) -> list[Message]:
        """Return the encoded Nacks."""
        messages: list[Message] = []
        while payload:
            size = int.from_bytes(payload[:2], "big")
            messages.append(Nack(size))
            payload = payload[size:]
        return messages


def sized(size: int) -> Nack:
    """Return a message of that many bytes."""
    return Nack(size)


def sizes(outgoing: list[Outgoing]) -> list[list[int]]:
    """Return the message sizes of each payload."""
    decoded = [SizedCodec().decode(one.payload) for one in outgoing]
    return [[m.sequence for m in messages if isinstance(m, Nack)] for messages in decoded]


def test_urgent_first() -> None:
    """Messages leave by priority, and by arrival within one priority."""
    outbox = Outbox(SizedCodec())
    outbox.put(PEER, sized(10), Priority.REPAIR)
    outbox.put(PEER, sized(11), Priority.OWN)
    outbox.put(PEER, sized(12), Priority.PROBE)
    outbox.put(PEER, sized(13), Priority.OWN)

    assert sizes(outbox.drain()) == [[12, 11, 13, 10]]
    assert outbox.drain() == []
    assert len(outbox) == 0


def test_full_queue_drops_the_least_urgent() -> None:
    """A probe finds room in a full queue; another relayed message does not."""
    outbox = Outbox(SizedCodec())
    for _ in range(limits.OUTBOX_MESSAGES_PER_PEER_MAX):
        assert outbox.put(PEER, sized(20), Priority.RELAYED)

    assert not outbox.put(PEER, sized(21), Priority.RELAYED)
    assert outbox.put(PEER, sized(22), Priority.PROBE)
    assert outbox.put(OTHER, sized(23), Priority.REPAIR)

    assert len(outbox) == limits.OUTBOX_MESSAGES_PER_PEER_MAX + 1
    assert outbox.dropped_count == 2
    left = [size for payload in sizes(outbox.drain()) for size in payload]
    assert left[0] == 22
    assert left.count(20) == limits.OUTBOX_MESSAGES_PER_PEER_MAX - 1
    assert 21 not in left


def test_total_is_bounded() -> None:
    """However many the peers, the whole outbox has one bound."""
    outbox = Outbox(SizedCodec())
    message = sized(4)
    for number in range(limits.OUTBOX_MESSAGES_MAX):
        outbox.put(NodeId((number % 1000).to_bytes(16, "big")), message, Priority.OWN)

    assert not outbox.put(PEER, message, Priority.OWN)
    assert len(outbox) == limits.OUTBOX_MESSAGES_MAX


def test_one_message_to_many_is_encoded_once() -> None:
    """One message for many peers is encoded once."""
    codec = SizedCodec()
    outbox = Outbox(codec)
    message = sized(30)
    for number in range(5):
        outbox.put(NodeId(number.to_bytes(16, "big")), message, Priority.OWN)

    assert len(outbox.drain()) == 5
    assert codec.encoded == [message]


def test_forgotten_peer_gets_nothing() -> None:
    """Messages for a forgotten peer are dropped, and not counted."""
    outbox = Outbox(SizedCodec())
    outbox.put(PEER, sized(10), Priority.OWN)
    outbox.forget(PEER)

    assert len(outbox) == 0
    assert outbox.drain() == []


class News:
    """A piggyback source with one message, which notes the room that it was offered."""

    def __init__(self, message: bytes) -> None:
        self.rooms: list[tuple[NodeId, int]] = []
        self._message = message

    def piggyback(self, to: NodeId, room: int) -> list[bytes]:
        """Return the message, whoever the peer is."""
        self.rooms.append((to, room))
        return [self._message]


def test_room_is_offered_once_per_peer() -> None:
    """The piggyback source is called once per peer, for the roomiest payload."""
    news = News(b"\x00\x05...")
    outbox = Outbox(SizedCodec())
    outbox.put(PEER, sized(1000), Priority.OWN)
    outbox.put(PEER, sized(500), Priority.OWN)

    assert sizes(outbox.drain(news)) == [[1000], [500, 5]]
    assert news.rooms == [(PEER, limits.PAYLOAD_SIZE_MAX - 500)]


def test_offered_room_alone_makes_a_datagram() -> None:
    """With updates to fill it a datagram leaves; without any, none does."""
    outbox = Outbox(SizedCodec())
    outbox.offer_room(PEER)
    assert outbox.drain() == []

    outbox.offer_room(PEER)
    assert outbox.drain(News(b"\x00\x02")) == [Outgoing(PEER, b"\x00\x02")]


message_sizes = st.integers(2, limits.PAYLOAD_SIZE_MAX)
puts = st.lists(st.tuples(st.sampled_from([PEER, OTHER]), message_sizes, st.sampled_from(Priority)))


@given(puts)
def test_packing(waiting: list[tuple[NodeId, int, Priority]]) -> None:
    """Payloads fit, none is empty, and no message is lost, split or doubled."""
    outbox = Outbox(SizedCodec())
    for to, size, priority in waiting:
        outbox.put(to, sized(size), priority)

    outgoing = outbox.drain()

    assert all(0 < len(one.payload) <= limits.PAYLOAD_SIZE_MAX for one in outgoing)
    for peer in (PEER, OTHER):
        mine = [one for one in outgoing if one.to == peer]
        sent = [size for payload in sizes(mine) for size in payload]
        assert sorted(sent) == sorted(size for to, size, _ in waiting if to == peer)


def test_an_oversized_message_is_asserted() -> None:
    """A message that no datagram can carry is asserted, not dropped."""
    outbox = Outbox(SizedCodec())
    outbox.put(PEER, sized(limits.PAYLOAD_SIZE_MAX + 1), Priority.OWN)
    outbox.put(OTHER, PingRequest(1, PEER), Priority.OWN)

    with pytest.raises(AssertionError, match="too large"):
        outbox.drain()
