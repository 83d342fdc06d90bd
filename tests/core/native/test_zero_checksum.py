"""Which members are sent IPv6 packets without a UDP checksum."""

from __future__ import annotations

from dataclasses import replace

from overlay.core.declared.kinds import ZERO_CHECKSUM_KIND
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.log.store import Store
from overlay.core.log.writer import LogWriter
from overlay.core.native.zero_checksum import ZeroChecksumMembers, object_name
from overlay.core.protocol.records import CLUSTER_SCOPE, DeclaredObject
from overlay.model import Card, NodeId, node_id_of, parse_ip
from overlay.sim.environment.notary import FakeSigner

KEYS = [bytes([number]) * 32 for number in (1, 2)]
ONE, TWO = map(node_id_of, KEYS)


class Bench:
    """A node's store, into which two nodes may write."""

    def __init__(self) -> None:
        self.store = Store(ONE)
        objects = DeclaredObjects(self.store, FakeSigner(KEYS[0]))
        self.members = ZeroChecksumMembers(objects, self.store)
        self.cards = {
            node_id: Card(
                node_id, "m", b"k" * 32, b"e" * 32, parse_ip("fd56::1"), 7948, 1, 1500, "0.4.0"
            )
            for node_id in (ONE, TWO)
        }
        self._logs: dict[NodeId, tuple[Store, LogWriter]] = {}
        for node_id, key in zip((ONE, TWO), KEYS, strict=True):
            self.store.accept_card(self.cards[node_id])
            store = Store(node_id)
            store.accept_card(self.cards[node_id])
            self._logs[node_id] = (store, LogWriter(store, FakeSigner(key)))

    def says(self, node_id: NodeId, body: bytes, name: str = "", version: int = 1) -> None:
        """Have a node write such an object into its log."""
        store, writer = self._logs[node_id]
        value = DeclaredObject(ZERO_CHECKSUM_KIND, name or object_name(node_id), version, body)
        for segment in writer.write(CLUSTER_SCOPE, [value], []):
            store.accept(segment)
            self.store.accept(segment)

    def becomes(self, node_id: NodeId, software: str) -> None:
        """Have a node publish the card of another version."""
        card = self.cards[node_id]
        self.cards[node_id] = replace(card, epoch=card.epoch + 1, software=software)
        self.store.accept_card(self.cards[node_id])


def test_a_member_counts_from_its_word_on_until_it_takes_it_back() -> None:
    """Nobody counts by default, as agents before 0.4.0 say nothing."""
    bench = Bench()
    assert bench.members.nodes() == frozenset()
    bench.says(TWO, b"0.4.0")
    assert bench.members.nodes() == {TWO}
    bench.says(TWO, b"", version=2)
    assert bench.members.nodes() == frozenset()


def test_it_speaks_of_the_software_that_wrote_it() -> None:
    """An older agent that takes over makes devices that refuse such packets, and says nothing."""
    bench = Bench()
    bench.says(TWO, b"0.4.0")
    assert bench.members.nodes() == {TWO}
    bench.becomes(TWO, "0.3.0")
    assert bench.members.nodes() == frozenset()
    bench.becomes(TWO, "0.4.0")
    assert bench.members.nodes() == {TWO}


def test_nobody_speaks_for_another_member() -> None:
    """An object in another node's log counts for nothing, whatever its name."""
    bench = Bench()
    bench.says(ONE, b"0.4.0", name=object_name(TWO))
    assert bench.members.nodes() == frozenset()
