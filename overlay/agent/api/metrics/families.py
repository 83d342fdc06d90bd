"""The metrics of an agent: their names, their help texts, and where each value comes from.

A pure function of the status document and of what `facts` collected, so that a test can show all
metrics without a cluster. Names follow Prometheus' conventions: base units, `_total` for counters,
times of the past and the future as Unix time. Each label has a bounded set of values, and the sum
over a label's values means something.
"""

from __future__ import annotations

import collections
import platform
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeVar

from overlay.agent.api.metrics.control_families import control_families
from overlay.agent.api.metrics.evpn_families import evpn_families
from overlay.agent.api.metrics.facts import MemberFacts, PeerFacts
from overlay.agent.api.metrics.policy_families import policy_families
from overlay.agent.api.metrics.process import ProcessFacts
from overlay.core.dataplane.traffic import TrafficCounters
from overlay.core.paths.view import PathState
from overlay.core.services.derivation import BackendState
from overlay.prometheus import Family, HistogramFamily, Labels, Sample

AnyFamily = Family | HistogramFamily
K = TypeVar("K")

# Every reason of the tables in docs/PROTOCOL.md and docs/API.md: a counter that first appears with
# its first drop has no rate.
DROP_REASONS: Final = (
    "answer-of-one-not-asked", "bad-card", "bad-signature", "bad-ticket", "banned",
    "certificate-expired", "cookie-not-asked", "cookie-sent", "forged-path-probe",
    "forgotten-origin", "handshake-queue-full", "incarnation-out-of-range", "late-response",
    "leave-as-rumour", "living-node-forgotten", "log-full", "malformed", "malformed-path-probe",
    "no-session", "other-version", "outbox-full", "own-datagram", "path-probe-of-unknown-sender",
    "probe-request-for-its-receiver", "rate-limited", "replayed", "stale-admission", "too-long",
    "too-many-peers", "too-short", "unauthenticated", "uncertified", "unknown-generation",
    "unknown-kind", "unknown-message", "unknown-origin", "unknown-token", "unwarranted-key",
    "wrong-receiver",
)  # fmt: skip


def families(
    status: Mapping[str, Any], process: ProcessFacts, member: MemberFacts | None
) -> Iterator[AnyFamily]:
    """Yield all metrics; without a cluster (`member` is None) only the agent's own."""
    yield from _of_agent(status, process)
    facts = member or MemberFacts()
    yield HistogramFamily(
        "overlayd_attach_duration_seconds",
        "Time from the request to the answer of attaches that made an endpoint.",
        facts.attach_times.durations,
    )
    yield _one(
        "overlayd_attach_failures_total",
        "Attaches that failed, including those that were refused.",
        facts.attach_times.failure_count,
    )
    if member is None:
        return
    yield from _of_cluster(status, member)
    yield from _of_gossip(status)
    yield from _of_host(status)
    yield from _of_peers(member.peers)
    labels = _unique({each["vni"]: each["name"] for each in status["networks"]}, "vni {}")
    yield from _of_networks(status, labels)
    yield from _of_sandboxes(member, labels)
    yield from _of_subnets(member, labels)
    yield Family(
        "overlayd_service_backends",
        "Containers that match the service, on all hosts, by state; ready ones get connections.",
        [
            Sample(
                each.backends.get(state, 0),
                (("network", labels[each.vni]), ("service", each.name), ("state", state.value)),
            )
            for each in member.services
            if each.vni in labels
            for state in BackendState
        ],
    )
    yield from control_families(member.drops, labels)
    if member.policies:
        yield from policy_families(member.policies, labels)
    if member.evpn is not None:
        yield from evpn_families(member.evpn)


def _one(name: str, text: str, value: float) -> Family:
    return Family(name, text, [Sample(value)])


def _of_agent(status: Mapping[str, Any], process: ProcessFacts) -> Iterator[AnyFamily]:
    version = (("version", status["version"]), ("python", platform.python_version()))
    yield _one("overlayd_up", "1 if the agent answered, 0 if it did not.", 1)
    yield Family("overlayd_build_info", "The agent's version; always 1.", [Sample(1, version)])
    yield _one(
        "overlayd_start_time_seconds", "Unix time of the agent's start.", process.start_time_s
    )
    yield _one(
        "overlayd_cpu_seconds_total", "Processor time that the agent has used.", process.cpu_s
    )
    yield _one(
        "overlayd_resident_memory_bytes", "Memory that the agent occupies.", process.memory_bytes
    )
    yield _one("overlayd_open_fds", "File descriptors that the agent has open.", process.open_fds)
    joined = status["cluster"] is not None
    yield _one("overlayd_joined", "1 if this host is in a cluster.", joined)
    levels = [each["level"] for each in status["health"]]
    yield Family(
        "overlayd_health_issues",
        "Problems that 'overlayd status' shows, by level.",
        [Sample(levels.count(level), (("level", level),)) for level in ("warn", "error")],
    )
    drops = dict.fromkeys(DROP_REASONS, 0) | status["drops"]
    yield Family(
        "overlayd_datagrams_dropped_total",
        "Datagrams and messages that were dropped, by reason (docs/PROTOCOL.md).",
        [Sample(count, (("reason", reason),)) for reason, count in drops.items()],
    )


def _of_cluster(status: Mapping[str, Any], member: MemberFacts) -> Iterator[AnyFamily]:
    node, cluster = status["node"], status["cluster"]
    info = (("node", node["name"]), ("id", node["id"]), ("cluster", cluster["id"]))
    yield Family(
        "overlayd_node_info", "The node's name and id, and its cluster's; always 1.",
        [Sample(1, info)],
    )  # fmt: skip
    yield Family(
        "overlayd_members",
        "Members of the cluster by their state, as this host sees them.",
        [Sample(count, (("state", state),)) for state, count in cluster["members"].items()],
    )
    yield _one(
        "overlayd_partitioned",
        "1 if so many members seem dead that this host is probably cut off.",
        cluster["partitioned"] is not None,
    )
    yield _one(
        "overlayd_authority_holders",
        "Members that hold the authority to admit hosts.",
        cluster["authority_holders"],
    )
    yield _one(
        "overlayd_authority_held", "1 if this host holds the authority.", member.holds_authority
    )
    yield _one(
        "overlayd_member_captures_total",
        "Captures at containers of this host that other members have begun.",
        member.member_captures,
    )
    yield _one(
        "overlayd_member_capture_packets_total",
        "Packets of containers of this host that were sent to other members' captures.",
        member.member_capture_packets,
    )
    yield _one(
        "overlayd_cluster_key_generation",
        "Generation of the cluster key in use.",
        status["key"]["generation"],
    )
    yield _one(
        "overlayd_cluster_key_created_timestamp_seconds",
        "Unix time at which the cluster key in use was made.",
        member.key_made_s,
    )
    yield _one(
        "overlayd_certificate_issued_timestamp_seconds",
        "Unix time from which this host's certificate is valid.",
        member.certificate_from_s,
    )
    yield _one(
        "overlayd_certificate_expiry_timestamp_seconds",
        "Unix time at which this host's certificate expires.",
        member.certificate_until_s,
    )


def _of_gossip(status: Mapping[str, Any]) -> Iterator[AnyFamily]:
    gossip = status["gossip"]
    yield _one(
        "overlayd_datagrams_received_total", "Gossip datagrams received.", gossip["received"]
    )
    yield _one("overlayd_datagrams_sent_total", "Gossip datagrams sent.", gossip["sent"])
    yield _one(
        "overlayd_event_loop_lag_seconds",
        "Largest delay of the agent's timers within the last minute.",
        gossip["lag_max_ms"] / 1000,
    )


def _of_host(status: Mapping[str, Any]) -> Iterator[AnyFamily]:
    vxlan_filter = status["underlay_filter"]
    yield _one(
        "overlayd_overlay_mtu_bytes", "MTU of containers on overlay networks.",
        status["overlay_mtu"],
    )  # fmt: skip
    yield _one(
        "overlayd_fast_path_active", "1 if unicast frames bypass the bridge by eBPF.",
        status["fast_path"]["active"],
    )  # fmt: skip
    yield _one(
        "overlayd_native_path_active", "1 if other hosts' frames bypass the VXLAN device by eBPF.",
        status["native_path"]["active"],
    )  # fmt: skip
    yield _one(
        "overlayd_underlay_filter_active", "1 if VXLAN is accepted from members only.",
        vxlan_filter["active"],
    )  # fmt: skip
    yield _one(
        "overlayd_underlay_filter_refused_packets_total",
        "VXLAN packets that did not come from a member and were refused.",
        vxlan_filter["refused"] or 0,
    )


def _of_peers(peers: list[PeerFacts]) -> Iterator[AnyFamily]:
    labels = _unique({each.node_id: each.name for each in peers}, "{}")
    named = [((("peer", labels[each.node_id]),), each) for each in peers]
    probed = [(label, each.path) for label, each in named if each.path is not None]
    judged = [(label, path) for label, path in probed if path.sending is not PathState.UNKNOWN]
    yield Family(
        "overlayd_peer_rtt_seconds",
        "Round-trip time of gossip to the peer, smoothed.",
        [Sample(each.rtt_s, label) for label, each in named if each.rtt_s is not None],
    )
    yield Family(
        "overlayd_path_up",
        "1 if the newest probes of the data path arrived, in both directions and at full size.",
        [Sample(path.carries, label) for label, path in probed if path.carries is not None],
    )
    yield Family(
        "overlayd_path_transmit_up",
        "1 if the newest probes from this host arrived at the peer.",
        [Sample(path.sending is PathState.OK, label) for label, path in judged],
    )
    yield Family(
        "overlayd_path_receive_up",
        "1 if the newest probes from the peer arrived at this host.",
        [
            Sample(path.receiving is PathState.OK, label)
            for label, path in probed
            if path.receiving is not PathState.UNKNOWN
        ],
    )
    yield Family(
        "overlayd_path_probes_total",
        "Probes that this host sent to the peer and waited for.",
        [Sample(path.probe_count, label) for label, path in probed],
    )
    yield Family(
        "overlayd_path_probes_lost_total",
        "Probes that the peer did not report: lost on their way, or their report was.",
        [Sample(path.probe_lost_count, label) for label, path in probed],
    )
    yield Family(
        "overlayd_path_mtu_bytes",
        "Largest underlay packet that is proven to reach the peer.",
        [
            Sample(path.size_carried, label)
            for label, path in probed
            if path.size_carried is not None
        ],
    )


def _of_networks(status: Mapping[str, Any], labels: Mapping[int, str]) -> Iterator[AnyFamily]:
    def each(*path: str) -> list[Sample]:
        found = []
        for network in status["networks"]:
            value: Any = network
            for key in path:
                value = value[key]
            found.append(Sample(value, (("network", labels[network["vni"]]),)))
        return found

    yield Family(
        "overlayd_endpoints", "Containers of this host on the network.", each("endpoints_local")
    )
    yield Family(
        "overlayd_cluster_endpoints",
        "Endpoints of all hosts on the network, in the records of this host.",
        each("endpoints_total"),
    )
    yield Family(
        "overlayd_kernel_rows_desired",
        "Rows that the network's sandbox should have.",
        each("rows", "desired"),
    )
    yield Family(
        "overlayd_kernel_rows_present",
        "Rows that the network's sandbox had when the kernel was last read.",
        each("rows", "actual"),
    )
    yield Family(
        "overlayd_reconcile_passes_total", "Reconcile passes over the sandbox.", each("passes")
    )
    yield Family(
        "overlayd_reconcile_reads_total", "Reconcile passes that read the kernel.", each("reads")
    )
    yield Family(
        "overlayd_kernel_operations_total",
        "Operations on the sandbox that reconcile passes performed.",
        each("operations"),
    )


def _of_sandboxes(member: MemberFacts, labels: Mapping[int, str]) -> Iterator[AnyFamily]:
    known = [
        ((("network", labels[each.vni]),), each) for each in member.networks if each.vni in labels
    ]
    yield Family(
        "overlayd_drift_detected_total",
        "Reconcile passes that found what another program had changed in the sandbox.",
        [Sample(each.drifts, label) for label, each in known],
    )
    yield Family(
        "overlayd_repairs_total",
        "Operations that undid what another program had changed in the sandbox.",
        [Sample(each.repairs, label) for label, each in known],
    )
    read = [(label, each.traffic) for label, each in known if each.traffic is not None]
    yield from _of_traffic(
        "overlayd_network",
        "{} that containers of this host {} on the network.",
        [(label, traffic.containers) for label, traffic in read],
    )
    yield from _of_traffic(
        "overlayd_tunnel",
        "{} that this host {} in the network's VXLAN tunnel, without its headers.",
        [(label, traffic.tunnel) for label, traffic in read if traffic.tunnel is not None],
    )


def _of_traffic(
    prefix: str, text: str, read: list[tuple[Labels, TrafficCounters]]
) -> Iterator[AnyFamily]:
    for direction, verb in (("receive", "received"), ("transmit", "sent")):
        for unit in ("bytes", "packets"):
            yield Family(
                f"{prefix}_{direction}_{unit}_total",
                text.format(unit.capitalize(), verb),
                [Sample(getattr(each, f"{direction}_{unit}"), label) for label, each in read],
            )


def _of_subnets(member: MemberFacts, labels: Mapping[int, str]) -> Iterator[AnyFamily]:
    known = [
        ((("network", labels[each.vni]), ("subnet", each.subnet)), each)
        for each in member.subnets
        if each.vni in labels
    ]
    yield Family(
        "overlayd_subnet_addresses_used",
        "Addresses of the subnet that endpoints of all hosts use.",
        [Sample(each.used, label) for label, each in known],
    )
    yield Family(
        "overlayd_subnet_addresses_free",
        "Addresses of the subnet that are free, on all hosts together.",
        [Sample(each.free, label) for label, each in known],
    )
    yield Family(
        "overlayd_subnet_addresses_free_here",
        "Free addresses of the subnet that this host owns and can assign without asking.",
        [Sample(each.free_here, label) for label, each in known],
    )


def _unique(named: Mapping[K, str], text: str) -> dict[K, str]:
    """Return names that differ: one that several keys have is given with the key."""
    counts = collections.Counter(named.values())
    return {
        key: name if counts[name] == 1 else f"{name} ({text.format(key)})"
        for key, name in named.items()
    }
