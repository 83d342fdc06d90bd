"""The experiments behind the report's rows on data-path probes: cost, false alarms, detection."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from overlay import limits
from overlay.core.events import Event, MemberChanged, PathReported
from overlay.core.paths.view import PathState
from overlay.model import NodeId
from overlay.sim.environment.network import Cut, Weather
from overlay.sim.host.host import Host
from overlay.sim.report.cluster import FIRST_VNI, Cluster
from overlay.sim.report.paths import SimPaths

_WARM_UP_S: Final = 8.0
_IDLE_S: Final = 20.0
_BAD: Final = frozenset({PathState.LOST, PathState.SILENT, PathState.DAMAGED})
_POLL_S: Final = 1.0
_HEALING_TIMEOUT_S: Final = 600.0


@dataclass(frozen=True, slots=True)
class PathCost:
    """The cost of probing, and how well it judges paths that only lose at random."""

    loss: float
    bit_per_s: float  # sent per node beyond the idle traffic, IP and UDP headers included
    bit_per_s_of_pair: float  # of each pair of nodes, both directions together
    false_alarms: int  # verdicts `lost`, `silent` or `damaged`, of either direction
    false_sizes: int  # verdicts that large packets do not arrive
    path_seconds: float


@dataclass(frozen=True, slots=True)
class PathPartition:
    """Probe results while two halves of a cluster do not reach each other, and after."""

    false_alarms: int  # within the halves
    named_s: float  # until every path between the halves was named, or its peer was dead
    proven_s: float  # from the end until every path was proven again


class PathExperiment:
    """A cluster of networks, in each of which all hosts probe each other."""

    def __init__(self, count: int, hosts_per_network: int, loss: float = 0.0) -> None:
        self._count = count
        self._weather = Weather(loss=loss, latency_s=0.005)
        self._cluster = cluster = Cluster(count, self._weather, hosts_per_network=hosts_per_network)
        self._networks = [
            cluster.hosts[first : first + hosts_per_network]
            for first in range(0, count, hosts_per_network)
        ]
        self._path_count = sum(len(hosts) * (len(hosts) - 1) for hosts in self._networks)
        self.interval_s = limits.PATH_PROBE_INTERVAL_S * max(
            1, math.ceil((hosts_per_network - 1) / limits.PATH_PEERS_PER_CYCLE)
        )
        cluster.run(_WARM_UP_S)
        before = cluster.sent_bytes()
        cluster.run(_IDLE_S)
        self._idle_bytes_per_s = (cluster.sent_bytes() - before) / _IDLE_S
        self._paths = {host.node_id: SimPaths(host, host.index) for host in cluster.hosts}
        self._stale: set[NodeId] = set()  # hosts whose set of peers must be made anew
        cluster.on_event = self._pass_on
        for host in cluster.hosts:
            self._probe_all(host)
        cluster.run(self.interval_s + limits.PATH_PROBE_INTERVAL_S)  # every path had its turn

    def _pass_on(self, host: Host, event: Event) -> None:
        if isinstance(event, PathReported):
            self._paths[host.node_id].report_received(event)
        elif isinstance(event, MemberChanged) and host.node_id not in self._stale:
            self._stale.add(host.node_id)
            host.later(_POLL_S, partial(self._probe_again, host))

    def _probe_again(self, host: Host, _: object) -> None:
        self._stale.discard(host.node_id)
        self._probe_all(host)

    def _probe_all(self, host: Host) -> None:
        """Have a host probe all live members of its network, as the agent does."""
        if host.node is None:
            return
        live = set(host.node.membership.live())
        vni = self._cluster.vni_of(host)
        on_network = self._networks[vni - FIRST_VNI]
        self._paths[host.node_id].probe(
            [each.node_id for each in on_network if each.node_id in live], vni
        )

    # --- the experiments ------------------------------------------------------------------

    def measure(self, loss: float, seconds: float) -> PathCost:
        """Return the cost at a loss of all datagrams, and the false verdicts."""
        cluster = self._cluster
        cluster.wires.weather = replace(self._weather, loss=loss)
        self._forget_changes()
        before = cluster.sent_bytes()
        cluster.run(seconds)
        extra_bytes = cluster.sent_bytes() - before - self._idle_bytes_per_s * seconds
        cluster.wires.weather = self._weather
        alarms, sizes = self._alarms(lambda _host, _peer: True)
        return PathCost(
            loss,
            8 * extra_bytes / (self._count * seconds),
            8 * extra_bytes / (self._path_count / 2 * seconds),
            alarms,
            sizes,
            self._path_count * seconds,
        )

    def detect(self) -> list[float]:
        """Have one host drop VXLAN; return when each other host knows."""
        cluster = self._cluster
        victim, *others = self._networks[0]
        self._forget_changes()
        dropping = self._paths[victim.node_id]
        dropping.lost_from = [host.node_id for host in others]
        started = cluster.schedule.now
        cluster.run(self.interval_s + 10.0)
        dropping.lost_from = ()
        found = []
        for host in others:
            times = (
                when - started
                for when, (_, after) in self._paths[host.node_id].changes
                if after.node_id == victim.node_id and after.sending is PathState.LOST
            )
            found.append(min(times, default=math.inf))
        return found

    def partition(self, seconds: float) -> PathPartition:
        """Cut the cluster into halves for some time, and each network with it."""
        cluster = self._cluster
        side = {host.node_id: host.index % 2 for host in cluster.hosts}
        sides = [frozenset(host.address for host in cluster.hosts[first::2]) for first in (0, 1)]
        within_halves = sum(
            host is not peer and side[host.node_id] == side[peer.node_id]
            for hosts in self._networks
            for host in hosts
            for peer in hosts
        )
        self._forget_changes()
        started = cluster.schedule.now
        cluster.wires.cuts = [Cut(sides[0], sides[1]), Cut(sides[1], sides[0])]
        named_s = math.inf
        while cluster.schedule.now < started + seconds:
            cluster.run(_POLL_S)
            if named_s == math.inf and self._proven_count() <= within_halves:
                named_s = cluster.schedule.now - started
        cluster.wires.cuts = []
        alarms, _ = self._alarms(lambda host, peer: side[host] == side[peer])
        healed = cluster.schedule.now
        timeout_s = healed + _HEALING_TIMEOUT_S
        while self._proven_count() < self._path_count and cluster.schedule.now < timeout_s:
            cluster.run(_POLL_S)
        return PathPartition(alarms, named_s, cluster.schedule.now - healed)

    def _proven_count(self) -> int:
        """Return how many paths are held to carry frames, each direction by its sender."""
        return sum(
            view.sending is PathState.OK for each in self._paths.values() for view in each.views()
        )

    def _forget_changes(self) -> None:
        for each in self._paths.values():
            each.changes.clear()

    def _alarms(self, counts: Callable[[NodeId, NodeId], bool]) -> tuple[int, int]:
        """Return how many verdicts became bad: on frames at all, and on large ones."""
        alarms = sizes = 0
        for host, each in self._paths.items():
            for _, (before, after) in each.changes:
                if counts(host, after.node_id):
                    alarms += after.sending in _BAD and before.sending not in _BAD
                    alarms += after.receiving in _BAD and before.receiving not in _BAD
                    sizes += after.size_fails and not before.size_fails
        return alarms, sizes
