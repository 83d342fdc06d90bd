"""Nodes keep reserves: whoever has little asks whoever has clearly more, and it ends."""

from __future__ import annotations

import itertools
import random

import pytest
from overlay import limits
from overlay.core.ipam.address_space import AddressSpace
from overlay.core.ipam.reserves import Cluster, Reserves
from overlay.core.log.store import Store
from overlay.core.log.writer import LogWriter
from overlay.core.protocol.messages import GrantRefusal, GrantRequest
from overlay.core.protocol.records import CLUSTER_SCOPE, Participation, Scope, Value, key_of
from overlay.model import (
    Card,
    Endpoint,
    Ip,
    Network,
    NodeId,
    Subnet,
    Vni,
    mac_for,
    node_id_of,
    parse_ip,
)
from overlay.sim.environment.notary import FakeSigner

VNI = Vni(9)


class Sync:
    """Says that some scopes are not complete."""

    def __init__(self) -> None:
        self.pending: set[Scope] = set()

    def is_pending(self, scope: Scope) -> bool:
        """Return whether a scope is not complete."""
        return scope in self.pending


class Member:
    """A node whose records reach all others at once."""

    def __init__(self, number: int, world: World) -> None:
        key = bytes([number]) * 32
        self.node_id = node_id_of(key)
        self.store = Store(self.node_id)
        self.card = Card(self.node_id, "n", key, key, Ip(bytes(4)), 7948, 1, 1500, "test")
        self.space = AddressSpace(self.store, self.node_id)
        self.sync = Sync()
        self.reserves = Reserves(
            self.space, self.store, self.sync, lambda: next(world.ids).to_bytes(8, "big")
        )
        self._writer = LogWriter(self.store, FakeSigner(key))
        self._world = world

    def write(self, scope: Scope, *puts: Value, deletes: tuple[Value, ...] = ()) -> None:
        """Write records, which all members have at once."""
        segments = self._writer.write(scope, puts, [key_of(value) for value in deletes])
        for segment in segments:
            for member in self._world.members:
                member.store.accept(segment)

    def attach(self, index: int = 0) -> bool:
        """Take an address of the own space; return whether there was one."""
        ip = self.space.pick(self._world.network, index, 0.0)
        if ip is not None:
            self.write(Scope(VNI), Endpoint(ip * 2, VNI, "web", mac_for(VNI, ip), (ip,)))
        return ip is not None

    def free(self, index: int = 0) -> int:
        """Return the number of free addresses that this node owns."""
        shares = self.space.shares(self._world.network)
        return sum(s.free for s in shares if (s.owner, s.subnet_index) == (self.node_id, index))

    def look(self, now: float) -> list[tuple[NodeId, GrantRequest]]:
        """Return the requests that this node sends now."""
        return self.reserves.requests([self._world.network], self._world.cluster(self), now)


class World:
    """Members of one network, all of which hold its records."""

    def __init__(self, count: int, subnet: Subnet) -> None:
        self.ids = itertools.count(1)
        self.members: list[Member] = []
        self.members += [Member(number, self) for number in range(1, count + 1)]
        self.network = Network(VNI, "blue", (subnet,), self.members[0].node_id)
        self.dead: set[NodeId] = set()
        for member in self.members:
            for other in self.members:
                other.store.accept_card(member.card)
        for member in self.members:
            member.write(CLUSTER_SCOPE, Participation(VNI, forwards=False))

    def cluster(self, seen_by: Member) -> Cluster:
        """Return the members as one of them sees them."""
        ids = [member.node_id for member in self.members]
        live = frozenset(ids) - self.dead - {seen_by.node_id}
        return Cluster(tuple(sorted(ids)), live)

    def round(self, now: float) -> int:
        """Let each member look once, and answer at once; return how many requests there were."""
        count = 0
        for member in self.members:
            for owner, request in member.look(now):
                count += 1
                asked = next(each for each in self.members if each.node_id == owner)
                answer, void = asked.space.decide_grant(self.network, member.node_id, request, now)
                if isinstance(answer, GrantRefusal):
                    member.reserves.handle_refusal(answer, now)
                else:
                    asked.write(Scope(VNI), answer, deletes=tuple(void))
        return count

    def settle(self, since: float = 10.0) -> int:
        """Let all look until nobody asks; return the number of rounds."""
        self.round(since - limits.RESERVE_GRACE_S)  # the creator has granted nothing unasked
        for number in range(100):
            if not self.round(since + number):
                return number
        raise AssertionError("they ask for ever")


def small(length: int = 24, block_length: int = 0) -> Subnet:
    """Return a subnet of 10.0.0.0."""
    return Subnet(parse_ip("10.0.0.0"), length, parse_ip("10.0.0.1"), block_length=block_length)


def test_members_without_a_reserve_ask_its_only_owner() -> None:
    """As on a network made before there were reserves: each gets a fair share."""
    world = World(5, small())
    world.settle()

    assert [member.free() for member in world.members] == [53, 50, 50, 50, 50]


def test_a_reserve_is_renewed_before_it_runs_out() -> None:
    """A member that attaches again and again never lacks an address while another has many."""
    world = World(3, small())
    world.settle()
    for _ in range(200):
        assert world.members[1].attach()
        world.settle()


def test_nobody_is_asked_for_its_last_address() -> None:
    """In a network that is nearly full the others stay as they are."""
    world = World(20, small(28))
    world.settle()
    free = sorted(member.free() for member in world.members)

    assert sum(free) == 13
    assert free[-1] <= 3
    assert world.round(999.0) == 0


@pytest.mark.parametrize("seed", range(20))
def test_asking_ends_whatever_is_used(seed: int) -> None:
    """Shares grow more equal with each grant; where blocks are granted, too."""
    rng = random.Random(seed)
    length = rng.choice([24, 26, 28])
    subnet = small(length, block_length=rng.choice([0, 0, 30, 29]))
    world = World(rng.randint(2, 9), subnet)
    for _ in range(60):
        rng.choice(world.members).attach()
        world.dead = {member.node_id for member in world.members if rng.random() < 0.3}
        world.settle(since=rng.uniform(10, 10_000))


def test_an_incomplete_scope_is_waited_for() -> None:
    """The grant may exist already; the creator's records, or three seconds, end the wait."""
    world = World(2, small())
    _, other = world.members
    other.sync.pending.add(Scope(VNI))
    assert other.look(0.0) == []
    assert other.reserves.due_in() == limits.RESERVE_RETRY_S
    other.sync.pending.clear()
    assert other.look(1.0) == []
    assert len(other.look(limits.RESERVE_GRACE_S)) == 1

    late = World(2, small())
    late.members[0].attach()
    assert len(late.members[1].look(0.0)) == 1


def test_a_silent_owner_is_asked_again_and_then_another() -> None:
    """Under the same id, so that a lost answer costs no second grant."""
    world = World(3, small())
    first, second, third = world.members
    first.attach()
    world.settle()
    while second.free() > 1:
        second.attach()
    asked = [second.look(now) for now in (0.0, 0.5, 1.0, 2.0, 3.0)]

    (owner, request), (_, again), (_, more), (other, different) = (
        found for each in asked for found in each
    )
    assert request == again == more
    assert {owner, other} == {first.node_id, third.node_id}
    assert request.request_id != different.request_id


def test_a_refusal_is_remembered_for_a_while() -> None:
    """An owner that cannot grant is left alone; the answer to others' requests is not ours."""
    world = World(2, small())
    first, second = world.members
    first.attach()
    ((_, request),) = second.look(0.0)

    assert not second.reserves.handle_refusal(GrantRefusal(bytes(8), "exhausted", 0), 0.0)
    assert second.reserves.handle_refusal(GrantRefusal(request.request_id, "exhausted", 0), 0.0)
    assert second.look(1.0) == []
    assert second.reserves.due_in() == limits.RESERVE_REFUSED_S
    assert len(second.look(limits.RESERVE_REFUSED_S)) == 1


def test_only_so_many_requests_are_open() -> None:
    """A node that joins a cluster with many networks asks for one after the other."""
    world = World(2, small())
    first, second = world.members
    networks = [
        Network(Vni(100 + number), f"n{number}", (small(),), first.node_id)
        for number in range(3 * limits.RESERVE_REQUESTS_MAX)
    ]
    for member in world.members:
        parts = [Participation(each.vni, forwards=False) for each in networks]
        member.write(CLUSTER_SCOPE, *parts)
    cluster = world.cluster(second)
    second.reserves.requests(networks, cluster, 0.0)
    assert second.reserves.due_in() == limits.RESERVE_RETRY_S

    found = second.reserves.requests(networks, cluster, limits.RESERVE_GRACE_S)
    assert len(found) == limits.RESERVE_REQUESTS_MAX
    assert second.reserves.due_in() == limits.RESERVE_SETTLE_S


def test_one_pass_checks_only_so_many_networks() -> None:
    """The others come soon after, and all in the end; an idle pass checks none."""
    world = World(2, small())
    first, second = world.members
    networks = [
        Network(Vni(100 + number), f"n{number}", (small(),), second.node_id)
        for number in range(3 * limits.RESERVE_CHECKS_MAX)
    ]
    second.write(CLUSTER_SCOPE, *[Participation(each.vni, forwards=False) for each in networks])
    cluster = Cluster(tuple(sorted([first.node_id, second.node_id])), frozenset([first.node_id]))
    waits = []
    for now in range(4):
        assert second.reserves.requests(networks, cluster, float(now)) == []
        waits.append(second.reserves.due_in())

    assert waits == [limits.RESERVE_SETTLE_S, limits.RESERVE_SETTLE_S, None, None]


def test_keepers_begin_to_hold_records() -> None:
    """Of networks that they do not hold yet, and only they."""
    world = World(2, small())
    first = world.members[0]
    other = Network(Vni(10), "red", (small(),), first.node_id)
    cluster = world.cluster(first)
    many = frozenset(node_id_of(bytes([number])) for number in range(200))
    crowd = Cluster(tuple(sorted([*many, first.node_id])), many)
    nets = [Network(Vni(n), f"n{n}", (small(),), first.node_id) for n in range(100, 300)]

    assert first.reserves.participations([world.network, other], cluster) == [
        Participation(10, forwards=False)
    ]
    assert 0 < len(first.reserves.participations(nets, crowd)) < 40
