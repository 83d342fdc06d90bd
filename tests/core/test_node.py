"""A node accepts valid messages of authenticated members, and drops the rest."""

from __future__ import annotations

from dataclasses import replace

import pytest
from overlay import limits
from overlay.core.log.writer import LogWriter
from overlay.core.protocol.messages import Delta
from overlay.core.protocol.records import CLUSTER_SCOPE, ForgottenNode, Scope, Segment, Value
from overlay.errors import RemoteError
from overlay.model import Network, NodeId, Vni
from tests.core.replication.test_replication import BLUE, Net, card_of, endpoint

OWN, PEER, OTHER = 1, 2, 3


class Seat:
    """A node with two peers, and what they send it."""

    def __init__(self) -> None:
        self.net = Net(1)
        self.node, self.peer, self.other = (self.net.add(number) for number in (OWN, PEER, OTHER))
        self.net.meet()
        self.node.add_peer(self.other.card, 0.0)
        self.net.run(1.0)

    def network(self, vni: int, number: int = PEER) -> list[Segment]:
        """Return the segments by which a peer creates a network."""
        return self.segments(Network(Vni(vni), f"net{vni}", (), self.id_of(number)), number=number)

    def segments(
        self, *values: Value, number: int = PEER, scope: Scope = CLUSTER_SCOPE
    ) -> list[Segment]:
        """Return what a peer would write, signed by its key."""
        signer, card = card_of(number)
        node = self.net.nodes[card.node_id]
        return LogWriter(node.store, signer).write(scope, values)

    @staticmethod
    def id_of(number: int) -> NodeId:
        """Return a node's id."""
        return card_of(number)[1].node_id

    def hear(self, *segments: Segment, sender: int = PEER) -> None:
        """Receive segments from a peer."""
        self.node.receive(Delta(tuple(segments)), self.id_of(sender), self.net.now)

    def networks(self) -> list[str]:
        """Return the names of the networks that this node knows of."""
        found = self.node.store.values(CLUSTER_SCOPE, "network")
        return [value.name for _, value in found if isinstance(value, Network)]


@pytest.fixture
def seat() -> Seat:
    """Return a node with two peers."""
    return Seat()


def test_a_segment_that_its_origin_did_not_sign_is_dropped(seat: Seat) -> None:
    """It is dropped whichever member relays it; the other segments of the message count."""
    (real,) = seat.network(8)
    (other,) = seat.network(9, OTHER)
    forged = replace(real, signature=bytes(64))
    stolen = replace(real, origin=seat.id_of(OTHER))
    for bad in (forged, stolen):
        with pytest.raises(RemoteError, match="bad-signature"):
            seat.hear(bad)
    assert seat.networks() == []

    with pytest.raises(RemoteError, match="bad-signature"):
        seat.hear(forged, other)
    assert seat.networks() == ["net9"]
    seat.hear(real, sender=OTHER)
    assert sorted(seat.networks()) == ["net8", "net9"]


def test_a_network_that_it_is_not_on_fills_no_memory(seat: Seat) -> None:
    """Its records are for its participants alone."""
    seat.hear(*seat.segments(endpoint(1), scope=BLUE))

    assert list(seat.node.store.values(BLUE, "endpoint")) == []


def test_a_live_node_is_not_declared_gone_by_a_member(seat: Seat) -> None:
    """Such a segment is refused as a whole, and the node stays a member."""
    living, gone = seat.id_of(OTHER), NodeId(b"g" * 16)
    with pytest.raises(RemoteError, match="living-node-forgotten"):
        seat.hear(*seat.segments(ForgottenNode(living)))
    assert not seat.node.is_forgotten(living)

    seat.hear(*seat.segments(ForgottenNode(gone), number=OTHER), sender=OTHER)
    assert seat.node.is_forgotten(gone)


def test_a_forgotten_node_is_not_heard(seat: Seat) -> None:
    """Whatever it says, and whoever's records it relays."""
    seat.hear(*seat.segments(ForgottenNode(seat.id_of(OTHER), b"w" * 64)))
    assert seat.node.is_forgotten(seat.id_of(OTHER))

    with pytest.raises(RemoteError, match="forgotten-origin"):
        seat.hear(*seat.network(8, OTHER), sender=OTHER)
    assert seat.networks() == []


def test_a_full_log_takes_no_more(seat: Seat, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until its writer cleans it."""
    seat.hear(*seat.network(8))
    log = seat.node.store.log(seat.id_of(PEER), CLUSTER_SCOPE)
    assert log is not None
    monkeypatch.setattr(limits, "SEGMENTS_PER_LOG_MAX", len(log.segments))
    signer, _ = card_of(PEER)
    more = signer.issue_segment(CLUSTER_SCOPE, 0, log.version, log.version + 1, ())

    with pytest.raises(RemoteError, match="log-full"):
        seat.hear(more)
