"""The experiment behind the report's row on data-path probes: cost, false alarms, detection."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from overlay.core.events import Event, PathReported
from overlay.core.paths.view import PathState
from overlay.model import NodeId
from overlay.sim.environment.network import Weather
from overlay.sim.host.host import Host
from overlay.sim.report.cluster import Cluster
from overlay.sim.report.paths import SimPaths

_WARM_UP_S: Final = 8.0
_BAD: Final = frozenset({PathState.LOST, PathState.SILENT})


@dataclass(frozen=True, slots=True)
class PathCost:
    """The cost of probing, and how well it judges."""

    bit_per_s: float  # sent per node beyond the idle traffic, IP and UDP headers included
    bit_per_s_of_pair: float  # of each pair of nodes, both directions together
    false_alarms: int  # verdicts `lost` or `silent` on a path that only loses at random
    path_seconds: float
    detection_s: list[float]  # until a host that drops all VXLAN is called lost, by each peer


def probe_all(count: int, weather: Weather, seconds: float) -> PathCost:
    """Have all hosts of one network probe each other; then one host drops VXLAN."""
    cluster = Cluster(count, weather)
    cluster.run(_WARM_UP_S)
    before = cluster.sent_bytes()
    cluster.run(seconds)
    idle_bytes = cluster.sent_bytes() - before

    paths = {host.node_id: SimPaths(host, host.index) for host in cluster.hosts}

    def pass_on(host: Host, event: Event) -> None:
        if isinstance(event, PathReported):
            paths[host.node_id].report_received(event)

    cluster.on_event = pass_on
    for host in cluster.hosts:
        others = [other.node_id for other in cluster.hosts if other is not host]
        paths[host.node_id].probe(others, cluster.vni_of(host))
    interval_s = 5.0 * max(1, math.ceil((count - 1) / 64))
    cluster.run(2 * interval_s)  # every path has had its first turn
    for each in paths.values():
        each.changes.clear()
    before = cluster.sent_bytes()
    cluster.run(seconds)
    extra_bytes = cluster.sent_bytes() - before - idle_bytes
    alarms = sum(
        after.sending in _BAD and before_.sending not in _BAD
        for each in paths.values()
        for _, (before_, after) in each.changes
    )
    return PathCost(
        8 * extra_bytes / (count * seconds),
        8 * extra_bytes / (seconds * count * (count - 1) / 2),
        alarms,
        count * (count - 1) * seconds,
        _detection(cluster, paths, 2 * interval_s + 10.0),
    )


def _detection(cluster: Cluster, paths: dict[NodeId, SimPaths], patience_s: float) -> list[float]:
    """Have one host drop VXLAN; return when each other host knows."""
    victim, others = cluster.hosts[0], cluster.hosts[1:]
    paths[victim.node_id].lost_from = [host.node_id for host in others]
    started = cluster.schedule.now
    cluster.run(patience_s)
    found = []
    for host in others:
        times = (
            when - started
            for when, (_, after) in paths[host.node_id].changes
            if when > started
            and after.node_id == victim.node_id
            and after.sending is PathState.LOST
        )
        found.append(min(times, default=math.inf))
    return found
