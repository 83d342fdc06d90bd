"""Merging, packing, broadcast, anti-entropy, confirmations: invariants."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from overlay import limits
from overlay.core.events import Event
from overlay.core.log.store import Acceptance, Store
from overlay.core.log.writer import LogWriter
from overlay.core.node import Node
from overlay.core.protocol.messages import Message
from overlay.core.protocol.outbox import Outgoing, card_messages, deltas, pages
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    ForgottenNode,
    Participation,
    Scope,
    Segment,
    Value,
    key_of,
)
from overlay.core.protocol.settings import ProtocolSettings
from overlay.errors import RemoteError, UsageError
from overlay.model import (
    Card,
    Endpoint,
    Grant,
    Ip,
    Mac,
    Network,
    NodeId,
    Subnet,
    Vni,
    node_id_of,
    parse_ip,
)
from overlay.sim.environment.notary import FakeSigner
from overlay.wire.codec.messages import MsgpackCodec

CODEC = MsgpackCodec()
BLUE = Scope(9)


def endpoint(number: int, name: str = "web") -> Endpoint:
    """Return one of many endpoint records."""
    ip = parse_ip(f"10.1.{number // 256 % 256}.{number % 256}")
    return Endpoint(number.to_bytes(8, "big"), Vni(9), name, Mac(b"\2\0\0\0\0\1"), (ip,))


def card_of(number: int) -> tuple[FakeSigner, Card]:
    """Return the signer and the card of node `number`."""
    key = number.to_bytes(2, "big") * 16
    signer = FakeSigner(key)
    address = Ip(bytes([10, 0, number // 256, number % 256]))
    card = Card(node_id_of(key), f"n{number}", key, key, address, 7948, 1, 1500, "test")
    return signer, signer.issue_card(card)


def written(changes: list[tuple[int, bool]]) -> tuple[Card, list[Segment], Store]:
    """Write puts and deletes to a log; return card, segments and store."""
    signer, card = card_of(1)
    store = Store(card.node_id)
    store.accept_card(card)
    author = LogWriter(store, signer)
    segments: list[Segment] = []
    for step, (number, put) in enumerate(changes):
        puts: list[Value] = [endpoint(number, f"web{step}")] if put else []
        made = author.write(BLUE, puts, [] if put else [("endpoint", number.to_bytes(8, "big"))])
        for segment in made:
            store.accept(segment)
        segments += made
    return card, segments, store


def content(store: Store) -> dict[tuple[NodeId, str, bytes], Value]:
    """Return all endpoint values of a store."""
    return {
        (origin, "endpoint", value.endpoint_id): value
        for origin, value in store.values(BLUE, "endpoint")
        if isinstance(value, Endpoint)
    }


CHANGES = st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=60)


@settings(max_examples=100, deadline=None)
@given(changes=CHANGES, seed=st.integers(0, 2**32))
def test_segments_merge_in_any_order_and_number(changes: list[tuple[int, bool]], seed: int) -> None:
    """Shuffled and doubled, then the missing ones in order."""
    card, segments, origin = written(changes)
    rng = random.Random(seed)
    replica = Store(NodeId(b"r" * 16))
    replica.accept_card(card)
    storm = [*segments, *segments]
    rng.shuffle(storm)
    for segment in storm[: len(segments)]:
        replica.accept(segment)
    held = replica.version(card.node_id, BLUE)
    for segment in origin.segments_beyond(card.node_id, BLUE, held):
        replica.accept(segment)

    assert content(replica) == content(origin)
    assert replica.root([BLUE]) == origin.root([BLUE])


@settings(max_examples=60, deadline=None)
@given(changes=st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=200, max_size=300))
def test_a_logs_size_follows_what_lives_in_it(changes: list[tuple[int, bool]]) -> None:
    """However often a few keys are written, the log stays short."""
    card, _, store = written(changes)
    log = store.log(card.node_id, BLUE)
    fresh = Store(NodeId(b"r" * 16))
    fresh.accept_card(card)
    for segment in store.segments_beyond(card.node_id, BLUE, 0):
        fresh.accept(segment)

    assert content(fresh) == content(store)
    assert log is None or len(log.segments) <= 20


@pytest.mark.parametrize("name", ["w", "w" * 63])
def test_a_node_has_all_of_a_long_log_again_after_a_start(name: str) -> None:
    """Also above a floor that is only in its newest segment.

    Nothing is left as a gap for other nodes, which may have started at the same time.
    """
    signer, card = card_of(1)
    store = Store(card.node_id)
    store.accept_card(card)
    author = LogWriter(store, signer)
    for number in range(1500):
        for segment in author.write(BLUE, [endpoint(number % 1200, f"{name[:58]}{number}")]):
            store.accept(segment)
    log = store.log(card.node_id, BLUE)
    assert log is not None
    assert log.floor > 0
    assert len(log.segments) > limits.EARLY_SEGMENTS_PER_LOG_MAX

    for number in (1, 2):  # its own, and another's
        own_notary, own = card_of(number)
        node = Node(own, own_notary, CODEC, random.Random(1), ProtocolSettings(), 0.0)
        part = node.write(CLUSTER_SCOPE, [Participation(9, forwards=True)])
        node.restore([card], [*part, *log.segments], 0.0)
        assert content(node.store) == content(store)
        assert node.store.version(card.node_id, BLUE) == log.version


def test_what_was_dropped_does_not_come_back_from_the_disk() -> None:
    """Records of a network that this node no longer participates in.

    They would be reported forever, and never change again.
    """
    net = Net(7)
    nodes = [net.add(number) for number in (1, 2)]
    net.meet()
    part = Participation(9, forwards=False)
    for node in nodes:
        net.write(node, CLUSTER_SCOPE, part)
    net.write(nodes[1], BLUE, endpoint(1))
    net.run(3.0)
    late, other = nodes[0], nodes[1].card
    disk = [
        *late.store.segments_beyond(late.card.node_id, CLUSTER_SCOPE, 0),
        *late.store.segments_beyond(other.node_id, CLUSTER_SCOPE, 0),
        *late.store.segments_beyond(other.node_id, BLUE, 0),
    ]
    gone = late.write(CLUSTER_SCOPE, [], [key_of(part)])
    late.apply(gone, net.now)
    assert content(late.store) == {}
    again = Node(late.card, card_of(1)[0], CODEC, random.Random(1), ProtocolSettings(), net.now)
    again.restore([other], [*disk, *gone], net.now)

    assert content(again.store) == {}
    assert again.store.root([BLUE]) == late.store.root([BLUE])


def test_large_records_are_not_written_again_with_each_other_one() -> None:
    """A record that fills its segment does not shrink by rewriting."""
    signer, card = card_of(1)
    store = Store(card.node_id)
    store.accept_card(card)
    author = LogWriter(store, signer)
    labels = tuple((f"key{number}", "x" * 100) for number in range(6))
    for number in range(500):
        large = dataclasses.replace(endpoint(number), labels=labels)
        for segment in author.write(BLUE, [large]):
            store.accept(segment)

    assert store.version(card.node_id, BLUE) < 2 * 500


@settings(max_examples=50, deadline=None)
@given(count=st.integers(1, 150), size=st.integers(0, 3))
def test_whatever_is_sent_fits_the_datagram(count: int, size: int) -> None:
    """Any number of segments, cards and versions fits, and none is lost."""
    signer, card = card_of(1)
    store = Store(card.node_id)
    store.accept_card(card)
    author = LogWriter(store, signer)
    segments = author.write(BLUE, [endpoint(n, "x" * (1 + 20 * size)) for n in range(count)])
    cards = [card_of(number)[1] for number in range(1, 1 + count % 40)]
    for segment in segments:
        store.accept(segment)
    versions = [store.log_version(card.node_id, BLUE)] * count

    packed = list(deltas(segments))
    assert [s for message in packed for s in message.segments] == segments
    messages: list[Message] = [*packed, *card_messages(cards)]
    assert all(len(CODEC.encode(message)) <= limits.PAYLOAD_SIZE_MAX for message in messages)
    assert all(len(s.raw) + len(s.signature) <= limits.SEGMENT_SIZE_MAX for s in segments)
    assert [v for page in pages(versions) for v in page] == versions


@dataclass
class Net:
    """Nodes and a lossy network that delays and doubles, from one seed."""

    seed: int
    loss: float = 0.0
    nodes: dict[NodeId, Node] = field(default_factory=dict)
    events: dict[NodeId, list[Event]] = field(default_factory=dict)
    flying: list[tuple[float, NodeId, Outgoing]] = field(default_factory=list)
    now: float = 0.0

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)

    def add(self, number: int) -> Node:
        """Start a node."""
        signer, card = card_of(number)
        node = Node(card, signer, CODEC, random.Random(number), ProtocolSettings(), self.now)
        self.nodes[card.node_id] = node
        self.events[card.node_id] = []
        return node

    def meet(self) -> None:
        """Introduce the first node to all, and all to it."""
        first, *others = self.nodes.values()
        for other in others:
            other.add_peer(first.card, self.now)
            first.add_peer(other.card, self.now)

    def write(self, node: Node, scope: Scope, *values: Value, confirm: bool = False) -> int | None:
        """Write and publish."""
        segments = node.write(scope, values)
        node.apply(segments, self.now)
        return node.publish(segments, self.now, confirm=confirm)

    def run(self, seconds: float) -> None:
        """Let time pass in steps of 10 ms."""
        end = self.now + seconds
        while self.now < end:
            self.now += 0.01
            for node_id, node in self.nodes.items():
                due = node.next_timer()
                if due is not None and due <= self.now:
                    node.handle_timer(self.now)
                self._send(node_id, node)
            self._deliver()

    def _send(self, node_id: NodeId, node: Node) -> None:
        while (event := node.next_event()) is not None:
            self.events[node_id].append(event)
        for outgoing in node.outbox.drain(node.membership):
            assert len(outgoing.payload) <= limits.PAYLOAD_SIZE_MAX
            for _ in range(2 if self.rng.random() < 0.05 else 1):
                if self.rng.random() >= self.loss:
                    arrival = self.now + 0.005 + 0.01 * self.rng.random()
                    self.flying.append((arrival, node_id, outgoing))

    def _deliver(self) -> None:
        due = [flight for flight in self.flying if flight[0] <= self.now]
        self.flying = [flight for flight in self.flying if flight[0] > self.now]
        for _, sender, outgoing in due:
            for message in CODEC.decode(outgoing.payload):
                receiver = self.nodes.get(outgoing.to)
                # Loss explains some drops: a segment may arrive before its origin's card.
                with contextlib.suppress(RemoteError):
                    if receiver is not None:
                        receiver.receive(message, sender, self.now)


@settings(max_examples=12, deadline=None)
@given(seed=st.integers(0, 2**32), loss=st.sampled_from([0.0, 0.1, 0.3]))
def test_all_become_equal_after_a_storm(seed: int, loss: float) -> None:
    """Five nodes write at random under loss; afterwards all are equal."""
    net = Net(seed, loss)
    nodes = [net.add(number) for number in range(1, 6)]
    net.meet()
    net.run(1.0)
    for node in nodes[:4]:
        net.write(node, CLUSTER_SCOPE, Participation(9, forwards=True))
    for step in range(40):
        net.write(net.rng.choice(nodes[:4]), BLUE, endpoint(net.rng.randrange(20), f"w{step}"))
        net.run(0.05)
    net.loss = 0.0
    net.run(8.0)

    assert len({node.store.root([CLUSTER_SCOPE, BLUE]) for node in nodes[:4]}) == 1
    assert len({len(content(node.store)) for node in nodes[:4]}) == 1
    assert content(nodes[0].store)


def test_a_node_that_does_not_participate_holds_no_records() -> None:
    """Only participants hold a network's records."""
    net = Net(1)
    nodes = [net.add(number) for number in range(1, 5)]
    net.meet()
    net.run(1.0)
    for node in nodes[:2]:
        net.write(node, CLUSTER_SCOPE, Participation(9, forwards=True))
    net.write(nodes[0], BLUE, endpoint(1))
    net.run(5.0)

    assert [len(content(node.store)) for node in nodes] == [1, 1, 0, 0]


def test_a_newcomer_catches_up_in_a_second() -> None:
    """3,000 records reach a new participant within a second."""
    net = Net(2, loss=0.01)
    first = net.add(1)
    net.write(first, CLUSTER_SCOPE, Participation(9, forwards=True))
    net.write(first, BLUE, *[endpoint(number) for number in range(3000)])
    late = net.add(2)
    net.meet()
    net.write(late, CLUSTER_SCOPE, Participation(9, forwards=True))
    net.run(2.0)

    assert len(content(late.store)) == 3000


def test_a_newcomer_learns_what_a_forgotten_node_wrote() -> None:
    """In whatever order it learns of it, its networks stay.

    A node without its records would differ from all others forever, and never be synced.
    """
    net = Net(6)
    nodes = [net.add(number) for number in range(1, 4)]
    net.meet()
    net.run(1.0)
    gone = nodes[2].card.node_id
    network = Network(Vni(9), "blue", (Subnet(Ip(b"\n\1\0\0"), 16, Ip(b"\n\1\0\1")),), gone)
    for node in nodes:
        net.write(node, CLUSTER_SCOPE, Participation(9, forwards=True))
    net.write(nodes[2], CLUSTER_SCOPE, network)
    net.write(nodes[2], BLUE, endpoint(1))
    net.run(1.0)
    del net.nodes[gone]
    net.flying.clear()
    net.write(nodes[0], CLUSTER_SCOPE, ForgottenNode(gone, b"w" * 64))
    net.run(1.0)
    late = net.add(4)
    late.add_peer(nodes[0].card, net.now)
    nodes[0].add_peer(late.card, net.now)
    net.write(late, CLUSTER_SCOPE, Participation(9, forwards=True))
    net.run(5.0)

    assert late.is_forgotten(gone)
    assert gone not in [member.node_id for member in late.membership.members()]
    assert (gone, network) in list(late.store.values(CLUSTER_SCOPE, "network"))
    assert late.store.root([CLUSTER_SCOPE, BLUE]) == nodes[0].store.root([CLUSTER_SCOPE, BLUE])
    assert late.caught_up


def test_a_wait_ends_when_everyone_has_programmed() -> None:
    """A wait is over once the last live participant confirms its kernel, and not before."""
    net = Net(3)
    nodes = [net.add(number) for number in range(1, 4)]
    net.meet()
    net.run(1.0)
    for node in nodes:
        net.write(node, CLUSTER_SCOPE, Participation(9, forwards=True))
    net.run(0.5)
    confirmed: list[tuple[int, list[NodeId]]] = []
    nodes[0].confirmations.confirmed.connect(lambda *args: confirmed.append(args))
    wait = net.write(nodes[0], BLUE, endpoint(1), confirm=True)
    assert wait is not None
    net.run(0.2)
    nodes[1].confirmations.programmed(nodes[1].store.versions(BLUE))
    net.run(0.2)
    assert nodes[0].unconfirmed_nodes(wait) == (nodes[2].card.node_id,)
    assert confirmed == []

    nodes[2].confirmations.programmed(nodes[2].store.versions(BLUE))
    net.run(0.2)

    assert confirmed == [(wait, [nodes[1].card.node_id, nodes[2].card.node_id])]


def test_only_a_grant_is_confirmed_without_a_sandbox() -> None:
    """A node that just holds the records has nothing to program; it has them all the same."""
    net = Net(7)
    nodes = [net.add(number) for number in range(1, 4)]
    net.meet()
    net.run(1.0)
    for node in nodes:
        part = Participation(9, forwards=node is not nodes[2])
        net.write(node, CLUSTER_SCOPE, part)
    net.run(0.5)

    wait = net.write(nodes[0], BLUE, endpoint(1), confirm=True)
    assert wait is not None
    assert nodes[0].unconfirmed_nodes(wait) == (nodes[1].card.node_id,)
    net.run(0.1)
    assert len(content(nodes[2].store)) == 1
    ip = parse_ip("10.0.0.9")
    grant = Grant(Vni(9), ip, ip, nodes[2].card.node_id, 1, bytes(8))
    wait = net.write(nodes[0], BLUE, grant, confirm=True)
    assert wait is not None
    assert set(nodes[0].unconfirmed_nodes(wait)) == {node.card.node_id for node in nodes[1:]}


def test_nobody_to_wait_for_is_no_wait() -> None:
    """A lone node, or the only participant, waits for nobody."""
    net = Net(4)
    node = net.add(1)
    net.write(node, CLUSTER_SCOPE, Participation(9, forwards=True))

    assert net.write(node, BLUE, endpoint(1), confirm=True) is None


def test_a_record_too_large_for_a_datagram_is_refused() -> None:
    """Labels beyond the limit are the caller's fault."""
    net = Net(5)
    node = net.add(1)
    labels = tuple((f"key{number}", "x" * 100) for number in range(16))
    large = dataclasses.replace(endpoint(1), labels=labels)

    with pytest.raises(UsageError, match="endpoint record is too large"):
        node.write(BLUE, [large])

    assert node.store.version(node.card.node_id, BLUE) == 0


def test_a_log_that_is_never_cleaned_is_not_stored_without_bound() -> None:
    """Beyond the limit of segments a log is dropped, with a reason."""
    signer, card = card_of(1)
    store = Store(NodeId(b"r" * 16))
    store.accept_card(card)
    verdicts = [
        store.accept(signer.issue_segment(BLUE, 0, n, n + 1, ()))[0]
        for n in range(limits.SEGMENTS_PER_LOG_MAX + 1)
    ]

    assert verdicts[-1] is Acceptance.FULL
    assert set(verdicts[:-1]) == {Acceptance.NEW}
