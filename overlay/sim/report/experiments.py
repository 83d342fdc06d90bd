"""Experiments on a simulated cluster: speed, cost and errors.

Owns: the experiments behind the table of goals. Each returns plain figures.
Does not: print or judge them; `report` does.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from overlay.core.events import Event, MemberChanged, StoreChanged
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import CLUSTER_SCOPE, Scope
from overlay.model import NodeId, Vni
from overlay.sim.environment.network import Cut, Weather
from overlay.sim.host.host import Host
from overlay.sim.report.cluster import Cluster
from overlay.wire.handshake.first_contact import UNKNOWN_GENERATION

LAN: Final = Weather(loss=0.01, latency_s=0.005)
LOSSY: Final = Weather(loss=0.05, latency_s=0.005)
_WARM_UP_S: Final = 8.0
_SLOW_SHARE: Final = 0.01
_SLOW_S: Final = 3.0  # datagrams from and to a slow host are delayed by 1.5 to 3 s


@dataclass(frozen=True, slots=True)
class IdleCost:
    """The cost of a cluster without changes."""

    bit_per_s: float  # sent per node, including IP and UDP headers
    node_seconds_per_s: float  # simulated per second of real time, on one core


@dataclass(frozen=True, slots=True)
class FalseDeaths:
    """Live members that were declared dead, by health."""

    healthy: int
    slow: int
    node_seconds: float


@dataclass(frozen=True, slots=True)
class JoinCost:
    """The cost of a newcomer to a cluster."""

    members_s: float  # until it knew every node's card
    records_s: float  # until it held every record of its networks
    sent_by_others_bytes: int  # meanwhile, by the whole cluster, in excess of idle traffic
    record_bytes: int  # size of the signed records that the newcomer needed
    busiest_bit_per_s: float  # highest rate of any host in any 0.1 s


@dataclass(frozen=True, slots=True)
class HealingTime:
    """Times from the end of a partition."""

    records_s: float  # until all records were equal again
    members_s: float  # until every member considered all others alive
    writes: int


@dataclass(frozen=True, slots=True)
class RotationTime:
    """Times and cost of a key rotation, from the creation of the key."""

    used_s: float  # until all members sealed with it
    alone_s: float  # until no member held another key
    unknown: int  # datagrams dropped meanwhile because the receiver lacked the key
    sent_bytes: int  # by the whole cluster until all sealed with it, in excess of idle traffic


def rotation(count: int) -> RotationTime:
    """Let one host create a key.

    Measures the time until all use it, and until the old one is gone.
    """
    cluster = Cluster(count, LAN, hosts_per_network=min(50, count), endpoints=5)
    cluster.run(_WARM_UP_S)
    before = cluster.sent_bytes()
    cluster.run(5.0)
    idle_bytes_per_s = (cluster.sent_bytes() - before) / 5.0
    maker = cluster.hosts[0]
    assert maker.keys is not None
    started, before = cluster.schedule.now, cluster.sent_bytes()
    maker.keys.make()
    key = maker.disk.ring.newest
    used_s = alone_s = math.inf
    sent_bytes = 0
    while cluster.schedule.now < started + 120.0 and alone_s == math.inf:
        cluster.run(0.05)
        since = cluster.schedule.now - started
        if used_s == math.inf and all(host.disk.ring.sealing == key for host in cluster.hosts):
            used_s = since
            sent_bytes = int(cluster.sent_bytes() - before - idle_bytes_per_s * since)
        if all(host.disk.ring.held == {key} for host in cluster.hosts):
            alone_s = since
    unknown = sum(host.drops[UNKNOWN_GENERATION] for host in cluster.hosts)
    return RotationTime(used_s, alone_s, unknown, sent_bytes)


def dissemination(count: int, writes: int, pause_s: float = 1.0) -> list[float]:
    """Write single records at random hosts of one network.

    Returns for each the seconds until the last host has it; infinite if one never receives it.
    """
    cluster = Cluster(count, LAN)
    cluster.run(_WARM_UP_S)
    waiting: dict[tuple[NodeId, Scope], tuple[int, float, set[NodeId]]] = {}
    to_all: list[float] = []

    def watch(host: Host, event: Event) -> None:
        if not isinstance(event, StoreChanged):
            return
        log = (event.origin, event.scope)
        waited = waiting.get(log)
        if waited is None or host.node is None:
            return
        version, since, missing = waited
        if host.node_id in missing and host.node.store.version(*log) >= version:
            missing.discard(host.node_id)
            if not missing:
                to_all.append(cluster.schedule.now - since)
                del waiting[log]

    cluster.on_event = watch
    for _ in range(writes):
        author = cluster.load.choice(cluster.hosts)
        others = {host.node_id for host in cluster.hosts if host is not author}
        since = cluster.schedule.now
        origin, scope, version = cluster.write(author)
        waiting[origin, scope] = (version, since, others)
        cluster.run(pause_s * (0.5 + cluster.load.random()))
    cluster.run(30.0)
    return to_all + [math.inf] * len(waiting)


def idle(count: int, endpoints: int, seconds: float) -> IdleCost:
    """Run a cluster without changes.

    Measures its traffic and the cost of simulating it.
    """
    cluster = Cluster(count, LAN, hosts_per_network=50, endpoints=endpoints)
    cluster.run(_WARM_UP_S)
    before, started = cluster.sent_bytes(), time.perf_counter()
    cluster.run(seconds)
    took_s = time.perf_counter() - started
    return IdleCost(
        8 * (cluster.sent_bytes() - before) / (count * seconds), count * seconds / took_s
    )


def catch_up(count: int, endpoints: int, holders: int) -> JoinCost:
    """Let a host join a cluster and a network with many endpoints.

    The endpoints are on `holders` hosts.
    """
    cluster = Cluster(
        count, LAN, hosts_per_network=holders, endpoints=endpoints // holders, populated=holders
    )
    cluster.run(_WARM_UP_S)
    before = cluster.sent_bytes()
    cluster.run(1.0)
    idle_bytes_per_s = cluster.sent_bytes() - before
    model = cluster.hosts[0]
    assert model.node is not None
    vni = cluster.vni_of(model)
    host = cluster.newcomer(cluster.hosts[-1], vni)
    assert host.node is not None
    started, before = cluster.schedule.now, cluster.sent_bytes()
    members_s = records_s = math.inf
    busiest = 0
    sent = [other.line.sent_bytes for other in cluster.hosts]
    while cluster.schedule.now < started + 120.0 and math.inf in (members_s, records_s):
        cluster.run(0.1)
        since = cluster.schedule.now - started
        last, sent = sent, [other.line.sent_bytes for other in cluster.hosts]
        busiest = max(busiest, *(now - then for now, then in zip(sent, last, strict=True)))
        if members_s == math.inf and len(host.node.store.cards) > count:
            members_s = since
        scopes = (CLUSTER_SCOPE, Scope(vni))
        if host.node.store.root(scopes) == model.node.store.root(scopes):
            records_s = min(records_s, since)
    extra = cluster.sent_bytes() - before - idle_bytes_per_s * (cluster.schedule.now - started)
    learned = sum(len(card.raw) for card in host.disk.all_cards()) + sum(
        len(segment.raw) for segment in host.disk.all_segments()
    )
    return JoinCost(members_s, records_s, round(extra), learned, 80.0 * busiest)


def detection(count: int, crashes: int) -> list[float]:
    """Crash hosts, one every few seconds.

    Returns for each the seconds until all others have detected it.
    """
    cluster = Cluster(count, LAN)
    cluster.run(_WARM_UP_S)
    victims = cluster.load.sample(cluster.hosts, crashes)
    died: dict[NodeId, float] = {}
    knows: dict[NodeId, set[NodeId]] = {}
    found: dict[NodeId, float] = {}

    def watch(host: Host, event: Event) -> None:
        if not isinstance(event, MemberChanged) or event.node_id not in died:
            return
        if event.after is MemberState.DEAD:
            knows[event.node_id].add(host.node_id)
            up = {other.node_id for other in cluster.up()}
            if up <= knows[event.node_id]:
                found.setdefault(event.node_id, cluster.schedule.now - died[event.node_id])

    cluster.on_event = watch
    for victim in victims:
        knows[victim.node_id] = set()
        died[victim.node_id] = cluster.schedule.now
        victim.stop()
        cluster.run(2.0 + 2.0 * cluster.load.random())
    cluster.run(60.0)
    return [found.get(victim.node_id, math.inf) for victim in victims]


def wrong_deaths(count: int, seconds: float, step: Callable[[float], None]) -> FalseDeaths:
    """Run a lossy cluster with some slow hosts.

    Counts live members that are declared dead.
    """
    cluster = Cluster(count, LOSSY)
    slow = cluster.load.sample(cluster.hosts, max(1, round(_SLOW_SHARE * count)))
    for host in slow:
        host.line.slow_s = _SLOW_S
    slow_ids = {host.node_id for host in slow}
    healthy: set[tuple[NodeId, int]] = set()
    sluggish: set[tuple[NodeId, int]] = set()

    def watch(host: Host, event: Event) -> None:
        if isinstance(event, MemberChanged) and event.after is MemberState.DEAD:
            assert host.node is not None
            member = host.node.membership.member(event.node_id)
            incarnation = 0 if member is None else member.incarnation
            # One death counts once, however many members learn of it.
            (sluggish if event.node_id in slow_ids else healthy).add((event.node_id, incarnation))

    cluster.on_event = watch
    while cluster.schedule.now < seconds:
        cluster.run(min(10.0, seconds - cluster.schedule.now))
        step(cluster.schedule.now)
    return FalseDeaths(len(healthy), len(sluggish), count * seconds)


def healing(
    count: int, seconds: float, writes_per_s: float, step: Callable[[float], None]
) -> HealingTime:
    """Partition a cluster in halves, write on both sides, heal it.

    Measures the time until all is equal.
    """
    cluster = Cluster(count, LAN, hosts_per_network=min(50, count), endpoints=5)
    cluster.run(_WARM_UP_S)
    one = frozenset(host.address for host in cluster.hosts[::2])
    other = frozenset(host.address for host in cluster.hosts[1::2])
    cluster.wires.cuts += [Cut(one, other), Cut(other, one)]
    end = cluster.schedule.now + seconds
    writes = 0
    reported_at = cluster.schedule.now
    while cluster.schedule.now < end:
        cluster.write(cluster.load.choice(cluster.hosts))
        writes += 1
        cluster.run(cluster.load.expovariate(writes_per_s))
        if cluster.schedule.now - reported_at > 10.0:
            reported_at = cluster.schedule.now
            step(reported_at)
    cluster.wires.cuts.clear()
    healed = cluster.schedule.now
    records_s = members_s = math.inf
    while cluster.schedule.now < healed + 300.0 and math.inf in (records_s, members_s):
        cluster.run(0.1)
        since = cluster.schedule.now - healed
        if records_s == math.inf and _equal(cluster):
            records_s = since
        if members_s == math.inf and _all_alive(cluster):
            members_s = since
    return HealingTime(records_s, members_s, writes)


def _equal(cluster: Cluster) -> bool:
    roots: dict[int, int] = {}
    for host in cluster.hosts:
        assert host.node is not None
        vni: Vni = cluster.vni_of(host)
        for scope in (CLUSTER_SCOPE, Scope(vni)):
            root = host.node.store.root([scope])
            if roots.setdefault(scope, root) != root:
                return False
    return True


def _all_alive(cluster: Cluster) -> bool:
    others = len(cluster.hosts) - 1
    return all(node.membership.count(MemberState.ALIVE) == others for node in cluster.nodes())
