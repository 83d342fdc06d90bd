"""Two hosts with one identity, as after a disk was copied."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from overlay.errors import RemoteError
from overlay.model import Card, Ip
from overlay.wire.codec.cards import pack_card
from tests.wire.conftest import pair

if TYPE_CHECKING:
    from tests.wire.conftest import Wire


def test_two_hosts_with_one_identity_are_notified(wire: Wire) -> None:
    """A copied disk shows when a replaced session returns.

    Both hosts get the other's address, and the replaced session's keys are not used again.
    """
    member = wire.host(9)
    original = wire.host(1)
    wire.meet(original, member)
    clone = wire.host(2, identity=original.identity, epoch=2)
    wire.meet(clone, member)
    wire.now += 10
    wire.deliver(clone.sessions.seal(member.node_id, b"alive", wire.now))
    notices: dict[Ip, Card | None] = {}
    original.sessions.mark_unresponsive(member.node_id)
    waiting = original.sessions.seal(member.node_id, b"unheard", wire.now)
    while waiting:
        datagram = waiting.pop(0)
        host = wire.hosts[datagram.address]
        try:
            opened = host.sessions.open(datagram.data, wire.source(datagram), wire.now)
        except RemoteError:
            continue
        assert opened.payload is None
        if opened.duplicate is not None:
            notices[datagram.address] = opened.duplicate
        waiting += opened.replies

    assert notices[member.card.address] == original.card
    assert notices[original.card.address] == clone.card
    assert notices[clone.card.address] == original.card
    wire.deliver(clone.sessions.seal(member.node_id, b"heard", wire.now))
    assert [payload for _, payload in wire.payloads] == [b"alive", b"heard"]


def test_a_late_hello_of_the_previous_process_is_no_duplicate(wire: Wire) -> None:
    """A restart on one host is one host, whatever the order of its hellos."""
    member = wire.host(9)
    before = wire.host(1)
    wire.meet(before, member)
    before.sessions.mark_unresponsive(member.node_id)
    wire.now += 2
    late = before.sessions.seal(member.node_id, b"late", wire.now)
    living = wire.host(1, identity=before.identity, epoch=2)
    wire.meet(living, member)
    wire.deliver(living.sessions.seal(member.node_id, b"here", wire.now))

    opened = member.sessions.open(late[0].data, wire.source(late[0]), wire.now)

    assert (opened.duplicate, opened.card) == (None, None)


def test_a_recorded_notice_does_not_alarm_a_later_process(wire: Wire) -> None:
    """A notice is for one process: replayed to the next one, it is dropped."""
    member = wire.host(9)
    original = wire.host(1)
    wire.meet(original, member)
    clone = wire.host(2, identity=original.identity, epoch=2)
    wire.meet(clone, member)
    wire.deliver(clone.sessions.seal(member.node_id, b"alive", wire.now))
    wire.now += 1
    original.sessions.mark_unresponsive(member.node_id)
    hello = original.sessions.seal(member.node_id, b"", wire.now)[0]
    (response,) = wire.open(hello)
    (confirm,) = wire.open(response)
    notice = next(reply for reply in wire.open(confirm) if reply.address == original.card.address)
    again = wire.host(1, identity=original.identity, epoch=3)
    again.sessions.learn(member.card)

    wire.open(notice)

    assert wire.drops == ["no-session"]


@pytest.mark.parametrize("is_own_id", [False, True])
def test_a_false_notice_alarms_nobody(wire: Wire, *, is_own_id: bool) -> None:
    """A member can show only a card with this node's id, and signed by its key."""
    one, member = pair(wire)
    session = member.sessions.context.table.link(one.node_id).current
    assert session is not None
    changed = replace(one.card, epoch=9)
    card = replace(changed, raw=pack_card(changed)) if is_own_id else member.card
    wire.now += 1
    wire.open(member.sessions.context.maker.duplicate_notice(session, card))

    assert wire.drops == ["bad-card"]
