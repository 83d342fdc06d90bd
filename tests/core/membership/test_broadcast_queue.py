"""The queue of membership updates."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay import limits
from overlay.core.membership.broadcast_queue import BroadcastQueue, transmission_count
from overlay.core.protocol.messages import MemberState, Rumour, Rumours
from overlay.core.protocol.settings import ProtocolSettings
from overlay.model import NodeId

if TYPE_CHECKING:
    from tests.core.conftest import TableCodec

ALIVE, SUSPECT, DEAD, LEFT = MemberState
ROOM = limits.PAYLOAD_SIZE_MAX


def name(number: int) -> NodeId:
    """Return the identity of the node with that number."""
    return NodeId(number.to_bytes(16, "big"))


def news(number: int, state: MemberState = ALIVE, incarnation: int = 1, by: int = 0) -> Rumour:
    """Return an update about a node."""
    return Rumour(name(number), incarnation, state, name(by or number))


def sent_by(
    queue: BroadcastQueue, codec: TableCodec, room: int = ROOM, times: int = 3, skip: int = -1
) -> list[Rumour]:
    """Return the updates that the queue puts into some room."""
    messages = queue.encoded(room, times, lambda rumour: rumour.node_id == name(skip & 0xFFFF))
    assert sum(map(len, messages)) <= room
    decoded = [codec.decode(message)[0] for message in messages]
    return [one for message in decoded if isinstance(message, Rumours) for one in message.rumours]


def test_an_update_is_sent_a_fixed_number_of_times(codec: TableCodec) -> None:
    """An update is sent exactly as many times as requested."""
    queue = BroadcastQueue(codec)
    queue.put(news(1))

    assert [len(sent_by(queue, codec, times=4)) for _ in range(6)] == [1, 1, 1, 1, 0, 0]
    assert len(queue) == 0


def test_updates_sent_least_go_first(codec: TableCodec) -> None:
    """If room is short, those sent least come first, newest before older."""
    queue = BroadcastQueue(codec)
    queue.put(news(1))
    sent_by(queue, codec)
    queue.put(news(2))
    queue.put(news(3))
    room = len(codec.encode(Rumours((news(1), news(2)))))

    assert [one.node_id for one in sent_by(queue, codec, room)] == [name(3), name(2)]


def test_a_newer_update_replaces_an_older(codec: TableCodec) -> None:
    """A refutation removes every accusation that it answers."""
    queue = BroadcastQueue(codec)
    queue.put(news(1, SUSPECT, by=5))
    queue.put(news(1, SUSPECT, by=6))
    assert len(queue) == 2

    queue.put(news(1, ALIVE, incarnation=2))

    assert sent_by(queue, codec) == [news(1, ALIVE, incarnation=2)]


def test_accusers_are_kept_apart(codec: TableCodec) -> None:
    """Independent accusations of a suspect spread together: they shorten it."""
    queue = BroadcastQueue(codec)
    queue.put(news(1, SUSPECT, by=5))
    queue.put(news(1, SUSPECT, by=6))
    queue.put(news(1, SUSPECT, by=6))

    assert {one.accuser for one in sent_by(queue, codec)} == {name(5), name(6)}


def test_skipped_updates_stay(codec: TableCodec) -> None:
    """Updates that the receiver knows are kept for others."""
    queue = BroadcastQueue(codec)
    queue.put(news(1))

    assert sent_by(queue, codec, times=1, skip=1) == []
    assert sent_by(queue, codec, times=1) == [news(1)]


def test_a_forgotten_node_has_no_updates(codec: TableCodec) -> None:
    """No update about a forgotten node is sent."""
    queue = BroadcastQueue(codec)
    queue.put(news(1, SUSPECT, by=5))
    queue.put(news(1, SUSPECT, by=6))
    queue.put(news(2))
    queue.forget(name(1))

    assert not queue.has(name(1))
    assert sent_by(queue, codec) == [news(2)]


@given(count=st.integers(0, 60), room=st.integers(0, ROOM))
def test_never_more_than_fits(codec: TableCodec, count: int, room: int) -> None:
    """Updates fit any room, and leave less than one update of it unused."""
    queue = BroadcastQueue(codec)
    for number in range(count):
        queue.put(news(number + 1, incarnation=limits.INCARNATION_MAX))

    sent = sent_by(queue, codec, room)

    rumour_size = len(codec.encode(Rumours((news(1),)))) - len(codec.encode(Rumours(())))
    base_size = len(codec.encode(Rumours(())))
    assert len(sent) == min(count, max(0, (room - base_size) // rumour_size))


@pytest.mark.parametrize(
    ("members", "loss", "times"),
    [(2, 0.0, 6), (10, 0.0, 7), (100, 0.0, 10), (1000, 0.0, 12), (1000, 0.3, 17), (1000, 0.9, 24)],
)
def test_transmissions_grow_with_the_logarithm(members: int, loss: float, times: int) -> None:
    """An update is sent lambda * log(n) times; lambda grows with the loss."""
    assert transmission_count(members, loss, ProtocolSettings()) == times


@given(st.integers(2, limits.MEMBER_COUNT_MAX), st.floats(0, 0.5))
def test_transmissions_reach_the_aim(members: int, loss: float) -> None:
    """The mean number of members that miss an update is below the aim."""
    settings = ProtocolSettings()
    times = transmission_count(members, loss, settings)

    missing = members * math.exp(-times * (1 - loss))
    assert missing <= settings.rumour_miss_share * (1 + 1e-9)
