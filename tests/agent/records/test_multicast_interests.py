"""Whose word on multicast counts, and where frames go for it."""

from __future__ import annotations

from typing import Any, cast

from overlay.agent.records.multicast_interests import MulticastInterests
from overlay.core.declared.kinds import INTEREST_KIND
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.log.store import Store
from overlay.core.log.writer import LogWriter
from overlay.core.multicast.groups import mac_of
from overlay.core.multicast.interest import Interest, object_name
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import CLUSTER_SCOPE, DeclaredObject
from overlay.model import Card, Ip, Network, NodeId, Subnet, Vni, node_id_of, parse_ip
from overlay.sim.environment.notary import FakeSigner

VNI = Vni(7)
GROUP = parse_ip("239.1.2.3")
NOTHING, WANTS = Interest(VNI, wants_all=False), Interest(VNI, wants_all=False, groups=(GROUP,))
KEYS = [bytes([number]) * 32 for number in (1, 2, 3)]
OWN, TWO, THREE = map(node_id_of, KEYS)
SUBNET = Subnet(parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.1"))
NETWORK = Network(VNI, "blue", (SUBNET,), OWN)
VTEPS = {TWO: parse_ip("10.0.0.2"), THREE: parse_ip("10.0.0.3")}


class FakeView:
    """Three hosts with a sandbox."""

    def participants(self, _vni: int, *, forwarding: bool) -> list[NodeId]:
        """Return all three."""
        assert forwarding
        return [OWN, TWO, THREE]

    def tunnel_end(self, _network: Network, node_id: NodeId) -> Ip | None:
        """Return the VTEP."""
        return VTEPS[node_id]


class Bench:
    """One node's store, into which all three may write."""

    def __init__(self) -> None:
        self.store = Store(OWN)
        self.states = dict.fromkeys((OWN, TWO, THREE), MemberState.ALIVE)
        objects = DeclaredObjects(self.store, FakeSigner(KEYS[0]))
        view = cast("Any", FakeView())
        self.interests = MulticastInterests(objects, view, OWN, self.states.__getitem__)
        self._others: dict[NodeId, tuple[Store, LogWriter]] = {}
        address = Ip(b"\x0a\0\0\1")
        for node_id in (OWN, TWO, THREE):
            card = Card(node_id, "m", b"k" * 32, b"e" * 32, address, 7948, 1, 1500, "test")
            self.store.accept_card(card)

    def says(self, node_id: NodeId, body: bytes, name: str = "", version: int = 1) -> None:
        """Have a node write a declared object into its own log."""
        key = next(key for key in KEYS if node_id_of(key) == node_id)
        if node_id not in self._others:
            store, card = Store(node_id), self.store.card(node_id)
            assert card is not None
            store.accept_card(card)
            self._others[node_id] = (store, LogWriter(store, FakeSigner(key)))
        store, writer = self._others[node_id]
        name = name or object_name(node_id, VNI)
        value = DeclaredObject(INTEREST_KIND, name, version, body)
        for segment in writer.write(CLUSTER_SCOPE, [value], []):
            store.accept(segment)
            self.store.accept(segment)


def test_frames_go_where_hosts_have_asked_for_them() -> None:
    """A host that has said nothing gets them, too."""
    bench = Bench()
    bench.says(TWO, WANTS.body())
    assert bench.interests.targets(NETWORK) == ()

    bench.says(THREE, NOTHING.body())
    assert dict(bench.interests.targets(NETWORK)) == {mac_of(GROUP): {VTEPS[TWO]}}
    bench.says(TWO, NOTHING.body(), version=2)
    assert bench.interests.targets(NETWORK) == ()


def test_what_a_dead_host_said_does_not_count() -> None:
    """Its containers may have joined since; a suspect one's still does."""
    bench = Bench()
    bench.says(TWO, WANTS.body())
    bench.says(THREE, NOTHING.body())
    bench.states[THREE] = MemberState.SUSPECT
    assert bench.interests.of_network(VNI) == {TWO: WANTS, THREE: NOTHING}

    bench.states[THREE] = MemberState.DEAD
    assert bench.interests.of_network(VNI) == {TWO: WANTS}
    assert bench.interests.targets(NETWORK) == ()
    assert bench.interests.of_host(THREE) == [NOTHING]


def test_a_host_speaks_for_itself_alone() -> None:
    """Another's word, and a body that no agent writes, keep no frame from anyone."""
    bench = Bench()
    bench.says(TWO, WANTS.body())
    bench.says(TWO, NOTHING.body(), object_name(THREE, VNI), version=9)
    bench.says(THREE, b"\0\0\7\4\0")

    assert bench.interests.of_network(VNI) == {TWO: WANTS}
    assert bench.interests.targets(NETWORK) == ()
