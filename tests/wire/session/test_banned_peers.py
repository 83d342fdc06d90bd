"""Forgotten nodes get no session, and are told so."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.wire.codec.datagram import Datagram
from overlay.wire.session.opened_datagram import OpenedDatagram
from tests.wire.conftest import pair

if TYPE_CHECKING:
    from tests.wire.conftest import Host, Wire


def test_a_banned_nodes_datagrams_are_dropped(wire: Wire) -> None:
    """After `forget` nothing of that identity is opened or sealed."""
    one, other = pair(wire)
    other.sessions.forget(one.node_id)
    wire.deliver(one.sessions.seal(other.node_id, b"x", wire.now))
    assert wire.drops == ["no-session"]
    again = wire.host(1, identity=one.identity, epoch=2)
    again.sessions.learn(other.card)
    wire.deliver(again.sessions.seal(other.node_id, b"x", wire.now))

    assert wire.payloads == []
    assert wire.drops[1:] == ["banned"]
    assert other.sessions.seal(one.node_id, b"x", wire.now) == []
    assert not again.sessions.established(other.node_id, wire.now)


def test_a_banned_node_is_told_at_intervals(wire: Wire) -> None:
    """Each hello proves its identity; it is told so at most once a second."""
    one, other = pair(wire)
    other.sessions.forget(one.node_id)
    notices: list[OpenedDatagram] = []
    for pause_s in (1.1, 0.2, 1.1):
        wire.now += pause_s
        again = wire.host(1, identity=one.identity, epoch=2)
        again.sessions.learn(other.card)
        (hello,) = again.sessions.seal(other.node_id, b"x", wire.now)
        notices += heard(wire, again, wire.open(hello))

    assert [(each.sender, each.is_banned) for each in notices] == [(other.node_id, True)] * 2
    assert wire.drops == ["banned"] * 3


def heard(wire: Wire, host: Host, answers: list[Datagram]) -> list[OpenedDatagram]:
    """Return what a host opens of some answers, without their replies."""
    return [host.sessions.open(answer.data, wire.source(answer), wire.now) for answer in answers]


def test_a_banned_node_that_knows_nobody_is_told(wire: Wire) -> None:
    """It lost its disk's peers: its join teaches it this node's card, and its hello the rest."""
    one, other = pair(wire)
    other.sessions.forget(one.node_id)
    again = wire.host(1, identity=one.identity, epoch=2)
    wire.now += 1.1
    (join,) = again.sessions.first_hello(other.card.address, 7948, wire.now)
    (learned,) = heard(wire, again, wire.open(join))
    wire.now += 1.1
    (told,) = heard(wire, again, wire.open(learned.replies[0]))

    assert told.is_banned
    assert not again.sessions.established(other.node_id, wire.now)
    assert wire.payloads == []


def test_a_node_that_knows_a_peer_only_as_banned_tells_it(wire: Wire) -> None:
    """A newcomer may learn that a node is forgotten before it has its card."""
    gone, newcomer = wire.host(1), wire.host(2)
    newcomer.sessions.forget(gone.node_id)
    newcomer.sessions.learn(gone.card)
    gone.sessions.learn(newcomer.card)
    (hello,) = gone.sessions.seal(newcomer.node_id, b"x", wire.now)
    (told,) = heard(wire, gone, wire.open(hello))

    assert told.is_banned
    assert not newcomer.sessions.established(gone.node_id, wire.now)
