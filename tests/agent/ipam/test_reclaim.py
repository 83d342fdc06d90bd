"""The work of reclaiming after a hostile member, in calls and not in time."""

from __future__ import annotations

import asyncio
import dataclasses
import sys
from types import FrameType, SimpleNamespace
from typing import Any, cast

import pytest
from overlay import limits
from overlay.agent.ipam.reclaim import Reclaim
from overlay.agent.networks import definition, leftovers
from overlay.agent.networks.definition import HostConstraints
from overlay.agent.networks.spec import NetworkSpec
from overlay.agent.networks.subnets import SubnetSpec
from overlay.agent.records.directory import Directory
from overlay.core.ipam.address_space import AddressSpace
from overlay.core.log.store import Store
from overlay.core.log.writer import LogWriter
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    ForgottenNode,
    Participation,
    ReclaimStatement,
    Scope,
    Segment,
    Value,
)
from overlay.errors import ConflictError
from overlay.model import Card, Ip, Network, NodeId, Subnet, Vni, node_id_of
from overlay.sim.environment.notary import FakeSigner

KEYS = {"self": b"s" * 32, "other": b"o" * 32, "hostile": b"h" * 32}
SELF, OTHER, HOSTILE = (node_id_of(key) for key in KEYS.values())
WRITTEN = 20_000


class Host:
    """This node's records, in which a hostile member has written very many networks."""

    def __init__(self) -> None:
        self.store = Store(SELF)
        self._writers = {}
        for at, (name, key) in enumerate(KEYS.items()):
            node_id, address = node_id_of(key), Ip(bytes([10, 0, 0, at]))
            self.store.accept_card(Card(node_id, name, key, key, address, 7948, 1, 1500, "test"))
            writer = Store(node_id) if node_id != SELF else self.store
            self._writers[node_id] = LogWriter(writer, FakeSigner(key))
        self.node_id = SELF
        self.may_write = True
        self.published = 0
        membership = SimpleNamespace(
            state_of=lambda node_id: MemberState.LEFT if node_id == HOSTILE else MemberState.ALIVE,
            members=lambda: [SimpleNamespace(node_id=OTHER, state=MemberState.ALIVE)],
        )
        self.node = SimpleNamespace(
            store=self.store,
            membership=membership,
            is_forgotten=lambda node_id: node_id == HOSTILE,
        )
        self.transport = SimpleNamespace(now=lambda: 0.0)
        self.directory = Directory(cast("Any", self.node), SELF)
        allocator = SimpleNamespace(space=AddressSpace(self.store, SELF))
        log = SimpleNamespace(record=lambda *_args, **_kwargs: None)
        self.reclaim = Reclaim(
            cast("Any", self), self.directory, cast("Any", allocator), cast("Any", log)
        )

    def commit(
        self, scope: Scope, puts: Any = (), deletes: Any = (), by: NodeId = SELF
    ) -> list[Segment]:
        """Write records."""
        segments = self._writers[by].write(scope, puts, deletes)
        for segment in segments:
            self.store.accept(segment)
        return segments

    def publish(self, segments: list[Segment]) -> None:
        """Count what the others would be sent."""
        self.published += len(segments)

    def absorb(self, values: list[Value]) -> None:
        """Receive a log of the hostile member, in the largest segments possible."""
        for at in range(0, len(values), 64):
            some = tuple(values[at : at + 64])
            self.store.accept(Segment(HOSTILE, CLUSTER_SCOPE, 0, at, at + len(some), some))

    def reconcile(self) -> None:
        """Run one pass."""
        asyncio.run(self.reclaim.reconcile())


def hostile_networks(count: int) -> list[Value]:
    """Return networks of the hostile member, and its participation in them."""
    found: list[Value] = []
    for number in range(count):
        base = Ip((0x64400000 + (number << 2)).to_bytes(4, "big"))
        subnet = Subnet(base, 30, Ip((0x64400001 + (number << 2)).to_bytes(4, "big")))
        found.append(Network(Vni(1_000_000 + number), f"x{number}", (subnet,), HOSTILE))
        found.append(Participation(1_000_000 + number, forwards=False))
    return found


class TooMuchWorkError(AssertionError):
    """A pass took more calls than allowed; raised at once, as it may never end."""


def calls(work: Any, at_most: int) -> None:
    """Do some work; raise TooMuchWorkError if it takes more calls and generator steps."""
    count = 0

    def note(_frame: FrameType, event: str, _arg: object) -> None:
        nonlocal count
        count += event in ("call", "c_call")
        if count > at_most:
            sys.setprofile(None)
            raise TooMuchWorkError(f"more than {at_most} calls")

    sys.setprofile(note)
    try:
        work()
    finally:
        sys.setprofile(None)


@pytest.fixture
def host() -> Host:
    """Return a host that has absorbed the hostile log."""
    made = Host()
    made.absorb(hostile_networks(WRITTEN))
    return made


def test_forgetting_a_hostile_member_is_bounded_work(host: Host) -> None:
    """Its records beyond the bound cost nothing, and each pass does its work once."""
    bound = limits.NETWORKS_PER_NODE_MAX
    host.commit(CLUSTER_SCOPE, [ForgottenNode(HOSTILE)])

    calls(host.reconcile, at_most=500 * bound)  # the statement; it follows the networks
    assert host.directory.follows(SELF, 1_000_000)
    host.commit(CLUSTER_SCOPE, [ReclaimStatement(HOSTILE, SELF, 0, 1, ())], by=OTHER)
    calls(host.reconcile, at_most=2000 * bound)  # the grants
    assert len(list(host.store.values(Scope(1_000_000), "grant"))) == 1
    calls(host.reconcile, at_most=500 * bound)  # its own grants are read
    written = host.published
    for number in range(3):  # later changes of other records
        host.commit(CLUSTER_SCOPE, [Participation(7 + number, forwards=False)], by=OTHER)
        calls(host.reconcile, at_most=50 * bound)
    assert host.published == written


def test_many_forgotten_nodes_are_bounded_work(host: Host) -> None:
    """A member that declares very many nodes gone costs one statement for each that counts."""
    made_up = [ForgottenNode(NodeId(number.to_bytes(16))) for number in range(5000)]
    host.commit(CLUSTER_SCOPE, made_up, by=OTHER)

    calls(host.reconcile, at_most=1000 * limits.FORGOTTEN_PER_NODE_MAX)
    stated = list(host.store.values_of(SELF, CLUSTER_SCOPE, "settled"))
    assert len(stated) == limits.FORGOTTEN_PER_NODE_MAX


def test_lookups_do_not_walk_all_records(host: Host) -> None:
    """Participants of a network and the network of a VNI are looked up, not searched."""
    directory, store = host.directory, host.store
    assert len(directory.networks()) == limits.NETWORKS_PER_NODE_MAX

    part = Participation(1_000_000, forwards=False)
    calls(lambda: directory.participants(1_000_000, forwarding=False), at_most=50)
    calls(lambda: directory.has_participation(HOSTILE, part), at_most=50)
    calls(lambda: directory.network_by_vni(1_000_000), at_most=50)
    calls(lambda: list(store.values(CLUSTER_SCOPE, "forgotten")), at_most=50)


def test_a_hostile_member_does_not_use_up_the_networks(host: Host) -> None:
    """Each host has a limit of its own, and creates networks up to it."""
    spec = NetworkSpec("mine", [SubnetSpec("10.9.0.0/24")])
    constraints = HostConstraints(lambda _range: None, frozenset())
    created = definition.create(cast("Any", host), host.directory, spec, constraints)
    assert host.directory.network("mine") == created

    more = [
        Network(Vni(50_000 + number), f"m{number}", created.subnets, SELF)
        for number in range(limits.NETWORKS_PER_NODE_MAX - 1)
    ]
    host.commit(CLUSTER_SCOPE, more)
    with pytest.raises(ConflictError, match="this host has created 1024 networks: the limit"):
        definition.create(
            cast("Any", host), host.directory, dataclasses.replace(spec, name="last"), constraints
        )


def test_a_forgotten_nodes_unused_networks_are_removed(host: Host) -> None:
    """All but the one on which another host has containers."""
    host.commit(CLUSTER_SCOPE, [ForgottenNode(HOSTILE)])
    host.commit(CLUSTER_SCOPE, [Participation(1_000_003, forwards=True)], by=OTHER)
    removed = leftovers.remove_unused(cast("Any", host), host.directory, HOSTILE)

    assert len(removed) == limits.NETWORKS_PER_NODE_MAX - 1
    assert [each.name for each in leftovers.networks_of(host.directory, HOSTILE)] == ["x3"]


def test_the_surplus_of_a_forgotten_member_is_not_reported(host: Host) -> None:
    """Nothing more can be done about it; its records stay, for those who join later."""
    assert [origin for origin, *_ in host.store.surplus()] == [HOSTILE, HOSTILE]
    assert list(host.directory.surplus()) == []


@pytest.mark.parametrize("is_forgotten", [False, True])
def test_records_matter_only_while_a_node_is_forgotten(*, is_forgotten: bool) -> None:
    """Each attach of any host changes records."""
    host = Host()
    if is_forgotten:
        host.commit(CLUSTER_SCOPE, [ForgottenNode(HOSTILE)])
    host.reclaim.records_changed()
    assert host.reclaim._triggered.is_set() is is_forgotten
