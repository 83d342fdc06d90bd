"""Confirmations for a log that was cleaned since."""

from __future__ import annotations

import pytest
from overlay import limits
from overlay.core.log.store import Store
from overlay.core.log.writer import LogWriter
from overlay.core.protocol.messages import Confirm, LogVersion
from overlay.core.protocol.outbox import Outbox
from overlay.core.protocol.records import Scope, Segment
from overlay.core.protocol.settings import ProtocolSettings
from overlay.core.replication.confirmations import Confirmations
from overlay.model import Card, Endpoint, Ip, Mac, NodeId, Vni, node_id_of, parse_ip
from overlay.sim.environment.notary import FakeSigner
from overlay.wire.codec.messages import MsgpackCodec

BLUE = Scope(9)
PEER = NodeId(b"p" * 16)
KEY = b"k" * 32


def endpoint(number: int, name: str = "web") -> Endpoint:
    """Return one of many endpoint records."""
    ip = parse_ip(f"10.1.0.{number}")
    return Endpoint(number.to_bytes(8, "big"), Vni(9), name, Mac(b"\2\0\0\0\0\1"), (ip,))


class Waiting:
    """A node that waits for one write to be confirmed, in a cleaned log."""

    def __init__(self) -> None:
        self.signer = FakeSigner(KEY)
        address = Ip(bytes([10, 0, 0, 1]))
        card = Card(node_id_of(KEY), "n1", KEY, KEY, address, 7948, 1, 1500, "test")
        self.node_id = card.node_id
        self.store = Store(self.node_id)
        self.store.accept_card(self.signer.issue_card(card))
        self.author = LogWriter(self.store, self.signer)
        self.confirmations = Confirmations(self.store, Outbox(MsgpackCodec()), ProtocolSettings())
        self.confirmed: list[tuple[int, list[NodeId]]] = []
        self.confirmations.confirmed.connect(lambda *args: self.confirmed.append(args))
        waited_for = self.write(endpoint(1))
        wait = self.confirmations.wait_for(waited_for, {BLUE: [PEER]}, 0.0)
        log = self.store.log(self.node_id, BLUE)
        assert wait is not None
        assert log is not None
        self.wait, self.log = wait, log
        while log.floor < waited_for[-1].upto:
            self.write(endpoint(2, f"web{log.version}"))

    def write(self, value: Endpoint) -> list[Segment]:
        """Write a record to this node's own log."""
        segments = self.author.write(BLUE, [value])
        for segment in segments:
            self.store.accept(segment)
        return segments

    def hear(self, version: int) -> None:
        """Receive the peer's confirmation of this node's log up to a version."""
        self.confirmations.receive(Confirm((LogVersion(self.node_id, BLUE, version, 0),)), PEER)


@pytest.fixture
def waiting() -> Waiting:
    """Return a node that waits."""
    return Waiting()


def test_the_new_floor_does_not_confirm_a_rewritten_entry(
    waiting: Waiting,
) -> None:
    """A peer that receives the floor first lacks the rewritten entry."""
    waiting.hear(waiting.log.floor)
    assert waiting.confirmations.missing(waiting.wait) == (PEER,)

    waiting.write(endpoint(3))
    waiting.hear(waiting.log.version - 1)
    assert waiting.confirmed == [(waiting.wait, [PEER])]


def test_a_confirm_during_recovery_of_the_own_log_counts(waiting: Waiting) -> None:
    """After a disk rollback the log may have no segment up to the floor."""
    ahead = waiting.log.version + 100
    waiting.store.accept(waiting.signer.issue_segment(BLUE, ahead, ahead + 1, ahead + 2, ()))

    waiting.hear(ahead)
    assert waiting.confirmed == [(waiting.wait, [PEER])]


def test_a_confirm_of_another_log_confirms_nothing(waiting: Waiting) -> None:
    """A peer tells of its own log in the same way."""
    waiting.confirmations.receive(Confirm((LogVersion(PEER, BLUE, 1_000_000, 0),)), PEER)

    assert waiting.confirmations.missing(waiting.wait) == (PEER,)


def test_so_many_writes_wait_at_once(waiting: Waiting, monkeypatch: pytest.MonkeyPatch) -> None:
    """One more is published, and nobody waits for it."""
    monkeypatch.setattr(limits, "CONFIRM_WAITS_MAX", 2)
    written = waiting.write(endpoint(4))

    assert waiting.confirmations.wait_for(written, {BLUE: [PEER]}, 0.0) is not None
    assert waiting.confirmations.wait_for(written, {BLUE: [PEER]}, 0.0) is None


def test_all_pending_confirmations_are_sent_at_once() -> None:
    """For however many networks: an omitted one would be requested again."""
    signer, outbox, codec = FakeSigner(KEY), Outbox(MsgpackCodec()), MsgpackCodec()
    own = node_id_of(KEY)
    confirmations = Confirmations(Store(own), outbox, ProtocolSettings())
    scopes = [Scope(number) for number in range(1, 61)]
    for scope in scopes:
        assert confirmations.handle_request(signer.issue_segment(scope, 0, 0, 1, ()), PEER)
    confirmations.programmed([LogVersion(own, scope, 1, 0) for scope in scopes])

    said = [each for sent in outbox.drain() for each in codec.decode(sent.payload)]
    confirms = [each for each in said if isinstance(each, Confirm)]
    assert [one.scope for each in confirms for one in each.versions] == scopes


def test_what_the_kernel_forwards_elsewhere_is_not_confirmed(waiting: Waiting) -> None:
    """A new endpoint whose address another one still has here; one that is over is no reason."""
    other = Store(PEER)
    other.accept_card(waiting.store.cards[waiting.node_id])
    confirmations = Confirmations(other, Outbox(MsgpackCodec()), ProtocolSettings())
    lost: list[bytes] = []

    def confirmable() -> bool:
        found = confirmations.confirmable(
            other.versions(BLUE),
            lambda _, new: {origin for origin, each in new if each.endpoint_id in lost},
        )
        return bool(found)

    for segment in waiting.store.segments_beyond(waiting.node_id, BLUE, 0):
        other.accept(segment)
    late = waiting.write(endpoint(5))
    lost.append(endpoint(5).endpoint_id)
    confirmations.programmed(other.versions(BLUE))
    assert confirmable()
    other.accept(late[0])
    assert not confirmable()
    lost.clear()
    assert confirmable()
    lost.append(endpoint(5).endpoint_id)
    confirmations.programmed(other.versions(BLUE))
    assert confirmable()
