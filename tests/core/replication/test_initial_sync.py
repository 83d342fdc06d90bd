"""A node that has started may write once its peers have sent their records."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field, replace

from overlay.core.events import (
    Event,
    InitialSyncDone,
    OwnCardAhead,
    OwnEndpointsWithdrawn,
    OwnLogAhead,
)
from overlay.core.node import Node
from overlay.core.protocol.messages import Delta
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    ForgottenNode,
    Participation,
    Scope,
    Segment,
    key_of,
)
from overlay.core.protocol.settings import ProtocolSettings
from overlay.model import Card, Endpoint, Ip, NodeId, Vni, mac_for, node_id_of
from overlay.sim.environment.notary import FakeSigner
from overlay.wire.codec.messages import MsgpackCodec

CODEC = MsgpackCodec()
_IP = Ip(b"\x0a\x20\x00\x02")
ENDPOINT = Endpoint(b"endpoint", Vni(9), "web", mac_for(Vni(9), _IP), (_IP,))


@dataclass
class Line:
    """Nodes that receive each other's messages at once, and their events."""

    nodes: dict[NodeId, Node] = field(default_factory=dict)
    events: dict[NodeId, list[Event]] = field(default_factory=dict)
    now: float = 0.0

    def add(
        self,
        number: int,
        now: float = 0.0,
        epoch: int = 1,
        place: int = 0,
        settings: ProtocolSettings | None = None,
    ) -> Node:
        """Start a node.

        A known number is the same node with an empty disk, perhaps at another `place`.
        """
        key = bytes([number]) * 32
        signer = FakeSigner(key)
        address = Ip(bytes([10, 0, place, number]))
        card = signer.issue_card(
            Card(node_id_of(key), f"n{number}", key, key, address, 7948, epoch, 1500, "test")
        )
        chance = random.Random(number)
        node = Node(card, signer, CODEC, chance, settings or ProtocolSettings(), now)
        self.nodes[card.node_id] = node
        self.events[card.node_id] = []
        return node

    def introduce(self, now: float = 0.0) -> None:
        """Send all cards to all nodes."""
        for node in self.nodes.values():
            for other in self.nodes.values():
                node.add_peer(other.card, now)

    def run(self, start: float, seconds: float, cut: bool = False) -> None:
        """Let time pass in steps of 10 ms; `cut` loses all messages."""
        for step in range(int(seconds * 100)):
            now = start + step / 100
            for node_id, node in self.nodes.items():
                due = node.next_timer()
                if due is not None and due <= now:
                    node.handle_timer(now)
                for to, payload in node.outbox.drain(node.membership):
                    if not cut:
                        for message in CODEC.decode(payload):
                            self.nodes[to].receive(message, node_id, now)
                while (event := node.next_event()) is not None:
                    self.events[node_id].append(event)
        self.now = start + seconds

    def write(self, node: Node, number: int, now: float) -> list[Segment]:
        """Write a record and publish it."""
        segments = node.write(CLUSTER_SCOPE, [Participation(number, forwards=True)])
        node.apply(segments, now)
        node.publish(segments, now)
        return segments


def test_a_node_that_knows_nobody_may_write_at_once() -> None:
    """The first node of a cluster does not wait."""
    assert Line().add(1).may_write(0.0)


def test_a_node_catches_up_with_all_within_moments() -> None:
    """It does not wait for probes: 12 peers take much less than 12 seconds."""
    line = Line()
    nodes = [line.add(number) for number in range(1, 14)]
    line.introduce()
    assert not nodes[0].caught_up
    line.run(0.0, 1.0)

    assert all(node.caught_up for node in nodes)
    assert all(
        sum(isinstance(event, InitialSyncDone) for event in events) == 1
        for events in line.events.values()
    )


def test_a_node_whose_peers_are_dead_is_idle() -> None:
    """It looks for a member to compare with once a second, until one of them returns."""
    line = Line()
    node, other = line.add(1), line.add(2)
    line.introduce()
    line.run(0.0, 30.0, cut=True)
    assert node.membership.live() == []

    looks = []
    now = 30.0
    while now < 40.0:
        node.handle_timer(now)
        looks.append(now)
        now = max(now + 1e-6, node.next_timer() or 40.0)
    assert len(looks) < 40, "probes and this, each once a second"
    other.add_peer(node.card, 40.0)
    line.run(40.0, 5.0)
    assert node.caught_up


def test_a_founder_without_members_is_synced() -> None:
    """After a while in which members that its disk does not know may contact it.

    Else nothing would ever be removed from its kernel that no record names.
    """
    line = Line()
    founder = line.add(1, settings=ProtocolSettings(founded_cluster=True))
    joiner = line.add(2)
    line.run(0.0, 9.9)
    assert [founder.caught_up, joiner.caught_up] == [False, False]
    line.run(9.9, 0.2)

    assert [founder.caught_up, joiner.caught_up] == [True, False], "one has not met its peer yet"
    assert any(isinstance(each, InitialSyncDone) for each in line.events[founder.card.node_id])


def test_a_node_whose_peers_are_all_forgotten_is_synced() -> None:
    """It starts anew with their cards, and nobody else is left; a dead one may know more."""
    line = Line()
    first, gone = line.add(1), line.add(2)
    line.introduce()
    line.run(0.0, 1.0)
    line.write(first, 7, 1.0)
    forgotten = ForgottenNode(gone.card.node_id)
    for is_forgotten in (False, True):
        segments = first.store.segments_beyond(first.card.node_id, CLUSTER_SCOPE, 0)
        again = line.add(1, now=20.0)
        again.restore([first.card, gone.card], segments, 20.0)
        line.run(20.0, 10.5, cut=True)

        assert again.caught_up is is_forgotten
        first.apply(first.write(CLUSTER_SCOPE, [forgotten]), 2.0)


def test_a_node_without_reachable_peers_is_not_synced() -> None:
    """Without a reachable peer it is not synced; it may write after 10 s."""
    line = Line()
    node = line.add(1)
    line.add(2)
    line.introduce()
    line.run(0.0, 9.5, cut=True)

    assert not node.caught_up
    assert not node.may_write(9.5)
    assert node.may_write(10.5)


def test_a_node_with_an_old_disk_writes_above_what_peers_hold() -> None:
    """It gets its lost records back before it may write (the amnesia rule)."""
    line = Line()
    for number in range(1, 5):
        line.add(number)
    line.introduce()
    line.run(0.0, 1.0)
    forgetful = next(iter(line.nodes.values()))
    for number in range(1, 6):
        line.write(forgetful, number, 1.0)
    line.run(1.0, 1.0)

    returned = line.add(1, now=2.0, epoch=2)
    line.introduce(2.0)
    while not returned.may_write(2.0):
        assert returned.store.version(returned.card.node_id, CLUSTER_SCOPE) <= 5
        line.run(2.0, 0.01)

    assert returned.store.version(returned.card.node_id, CLUSTER_SCOPE) == 5
    line.run(2.0, 0.02)
    events = line.events[returned.card.node_id]
    assert any(isinstance(event, OwnLogAhead) for event in events)


def test_endpoints_that_a_copy_withdrew_are_reported() -> None:
    """The node's owner may still have what they were for; those that it keeps are not reported."""
    line, scope = Line(), Scope(9)
    original, peer = line.add(1), line.add(2)
    line.introduce()
    line.run(0.0, 1.0)
    line.write(original, 9, 1.0)
    kept = replace(ENDPOINT, endpoint_id=b"kept")
    original.apply(original.write(scope, [ENDPOINT, kept]), 1.0)
    held = [
        each
        for one in (CLUSTER_SCOPE, scope)
        for each in original.store.segments_beyond(original.card.node_id, one, 0)
    ]
    copy = line.add(1, now=1.0)
    copy.store.accept_card(original.card)
    copy.apply(held, 1.0)
    while original.next_event() is not None:
        pass

    deletion = copy.write(scope, (), [key_of(ENDPOINT)])
    original.receive(Delta(tuple(deletion)), peer.card.node_id, 2.0)

    events = [*iter(original.next_event, None)]
    assert OwnEndpointsWithdrawn((ENDPOINT,)) in events
    assert [*original.store.values_of(original.card.node_id, scope, "endpoint")] == [kept]


def test_a_lost_network_returns_before_a_node_writes() -> None:
    """Peers send the participation first; what this node wrote in that network comes with it.

    Of 40 members only one other holds the network. Without it, an endpoint that the disk has lost
    would never be withdrawn.
    """
    line = Line()
    nodes = [line.add(number) for number in range(1, 41)]
    line.introduce()
    line.run(0.0, 3.0)
    for holder in (nodes[0], nodes[-1]):
        line.write(holder, 9, 3.0)
    line.run(3.0, 3.0)
    made = nodes[0].write(Scope(9), [ENDPOINT])
    nodes[0].apply(made, 6.0)
    nodes[0].publish(made, 6.0)
    line.run(6.0, 1.0)

    returned = line.add(1, now=7.0, epoch=2)
    for node in nodes[1:]:
        returned.add_peer(node.card, 7.0)
        node.add_peer(returned.card, 7.0)
    while not returned.may_write(line.now):
        line.run(line.now, 0.01)
        assert line.now < 12.0

    assert list(returned.store.values_of(returned.card.node_id, Scope(9), "endpoint")) == [ENDPOINT]


def test_a_disk_known_as_old_waits_for_a_peer() -> None:
    """A node that knows that its disk is old writes only after its peers have sent what they hold.

    Members that have left, or that it was told to forget, are not waited for.
    """
    patient = ProtocolSettings(amnesia_wait_s=math.inf)
    line = Line()
    node = line.add(1, settings=patient)
    others = [line.add(2), line.add(3)]
    line.introduce()
    line.run(0.0, 100.0, cut=True)
    assert not node.may_write(100.0)

    left = replace(others[0].card, left=True, epoch=2)
    assert node.store.accept_card(left)
    assert not node.may_write(100.0)
    forgotten = node.write(CLUSTER_SCOPE, [ForgottenNode(others[1].card.node_id)])
    node.apply(forgotten, 100.0)

    assert node.may_write(100.0)


def test_a_disk_that_forgot_all_members_waits_for_contact() -> None:
    """A node with an old disk that knows of nobody gives the members time to find it."""
    line = Line()
    other = line.add(2)
    settings = ProtocolSettings(amnesia_wait_s=math.inf, first_contact_wait_s=10.0)
    node = line.add(1, settings=settings)
    assert not node.may_write(9.0)

    node.add_peer(other.card, 9.0)

    assert not node.may_write(100.0), "it knows of one that has not sent its records"
    assert line.add(3, settings=settings).may_write(10.0)


def test_a_scope_newly_held_comes_from_a_holder_at_once() -> None:
    """Two of 40 members hold a network; a newcomer gets its records at once.

    Much faster than the forty seconds in which its probes reach them.
    """
    line = Line()
    nodes = [line.add(number) for number in range(1, 41)]
    line.introduce()
    line.run(0.0, 3.0)
    for holder in nodes[-2:]:
        line.write(holder, 9, 3.0)
    line.run(3.0, 3.0)
    made = nodes[-1].write(Scope(9), [ENDPOINT])
    nodes[-1].apply(made, 6.0)
    nodes[-1].publish(made, 6.0)
    line.write(nodes[0], 9, 6.1)
    assert nodes[0].scopes.is_pending(Scope(9))

    line.run(6.1, 1.0)

    assert not nodes[0].scopes.is_pending(Scope(9))
    assert [value for _, value in nodes[0].store.values(Scope(9), "endpoint")] == [ENDPOINT]


def test_restored_scopes_are_compared_before_anything_is_written() -> None:
    """The amnesia rule requires holders of this node's networks.

    Only they know what it wrote there last.
    """
    line = Line()
    nodes = [line.add(number) for number in range(1, 41)]
    line.introduce()
    line.run(0.0, 3.0)
    old = line.write(nodes[0], 9, 3.0) + line.write(nodes[-1], 9, 3.0)
    line.run(3.0, 3.0)
    lost = nodes[0].write(Scope(9), [ENDPOINT])
    nodes[0].apply(lost, 6.0)
    nodes[0].publish(lost, 6.0)
    line.run(6.0, 1.0)

    again = line.add(1, 7.0, epoch=2)
    again.restore([node.card for node in nodes[1:]], old, 7.0)
    # Nothing of the network is here: only the other holder can say what is missing.
    while not again.may_write(line.now):
        line.run(line.now, 0.01)
        assert line.now < 12.0

    assert again.store.version(again.card.node_id, Scope(9)) == lost[-1].upto


def test_an_announced_version_that_is_not_held_is_known() -> None:
    """A segment beyond a gap shows the version of its log."""
    line = Line()
    one, other = line.add(1), line.add(2)
    line.introduce()
    line.run(0.0, 2.0)
    first = line.write(one, 9, 2.0)
    line.run(2.0, 0.2, cut=True)
    second = line.write(one, 10, 2.2)
    line.run(2.2, 0.2, cut=True)
    assert other.anti_entropy.origin_version(one.card.node_id, CLUSTER_SCOPE) == 0

    other.receive(Delta(tuple(second)), one.card.node_id, 2.4)

    assert other.store.version(one.card.node_id, CLUSTER_SCOPE) == 0
    known = other.anti_entropy.origin_version(one.card.node_id, CLUSTER_SCOPE)
    assert known == second[-1].upto > first[-1].upto


def test_a_node_with_an_outdated_card_is_sent_the_newer_one() -> None:
    """A node with a copied disk meets its own epoch with another address.

    No digest differs, so its peer sends it the card, and it continues above it.
    """
    line = Line()
    one, other = line.add(1), line.add(2)
    line.introduce()
    line.run(0.0, 1.0)
    again = line.add(1, 1.0, place=9)
    again.add_peer(other.card, 1.0)
    other.add_peer(again.card, 1.0)
    line.run(1.0, 0.5)

    ahead = [item for item in line.events[again.card.node_id] if isinstance(item, OwnCardAhead)]
    assert [item.epoch for item in ahead[:1]] == [one.card.epoch]
