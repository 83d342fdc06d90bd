"""The status document in Prometheus' text format.

A pure function of the status document, so that each figure has one source. Format: Prometheus,
"Exposition formats", text format 0.0.4.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple

CONTENT_TYPE: Final = "text/plain; version=0.0.4"


class Sample(NamedTuple):
    """One value; its labels distinguish it from others of its family."""

    value: float
    labels: tuple[tuple[str, str], ...] = ()


class Family(NamedTuple):
    """All values of one name.

    Those whose name ends in `_total` only grow, until the agent restarts.
    """

    name: str
    help: str
    samples: Iterable[Sample]


def text(status: Mapping[str, Any]) -> str:
    """Return a status document in Prometheus' text format."""
    lines: list[str] = []
    for family in _families(status):
        samples = list(family.samples)
        if not samples:
            continue
        kind = "counter" if family.name.endswith("_total") else "gauge"
        lines.append(f"# HELP overlayd_{family.name} {family.help}")
        lines.append(f"# TYPE overlayd_{family.name} {kind}")
        lines += [f"overlayd_{family.name}{_labels(each)} {each.value:.15g}" for each in samples]
    return "\n".join(lines) + "\n"


def _families(status: Mapping[str, Any]) -> Iterator[Family]:
    node = status["node"] or {}
    info = (("version", status["version"]), ("node", node.get("name", "")))
    yield Family("info", "The agent's version and node name.", [Sample(1, info)])
    yield Family("uptime_seconds", "Time since the agent started.", [Sample(status["uptime_s"])])
    levels = [each["level"] for each in status["health"]]
    yield Family(
        "health_complaints", "Health messages of the status, by level.",
        [Sample(levels.count(level), (("level", level),)) for level in ("warn", "error")],
    )  # fmt: skip
    drops = status["drops"].items()
    yield Family(
        "datagrams_dropped_total", "Datagrams and messages dropped, by reason (docs/PROTOCOL.md).",
        [Sample(count, (("reason", reason),)) for reason, count in drops],
    )  # fmt: skip
    if status["cluster"] is not None:
        yield from _of_member(status)


def _of_member(status: Mapping[str, Any]) -> Iterator[Family]:
    gossip, vxlan_filter = status["gossip"], status["underlay_filter"]
    members = status["cluster"]["members"].items()
    yield Family(
        "members", "Members of the cluster, by state as seen here.",
        [Sample(count, (("state", state),)) for state, count in members],
    )  # fmt: skip
    holders = status["cluster"].get("authority_holders")  # an older agent does not say
    yield Family(
        "authority_holders", "Members that hold the cluster's authority.",
        [] if holders is None else [Sample(holders)],
    )  # fmt: skip
    yield Family(
        "datagrams_received_total", "Gossip datagrams received.", [Sample(gossip["received"])]
    )
    yield Family("datagrams_sent_total", "Gossip datagrams sent.", [Sample(gossip["sent"])])
    key = status["key"]
    in_use = Sample(key["generation"])
    yield Family("key_generation", "Generation of the cluster key in use.", [in_use])
    accepted = [
        Sample(one["datagrams"], (("generation", str(one["generation"])), ("mark", one["mark"])))
        for one in key["accepted"]
    ]
    yield Family("datagrams_accepted_total", "Datagrams opened, by cluster key.", accepted)
    lag_s = gossip["lag_max_ms"] / 1000
    yield Family("event_loop_lag_seconds", "Largest lag of the last minute.", [Sample(lag_s)])
    yield Family("overlay_mtu_bytes", "Overlay MTU in bytes.", [Sample(status["overlay_mtu"])])
    fast = Sample(status["fast_path"]["active"])
    yield Family("fast_path_active", "1 if the eBPF fast path is active.", [fast])
    yield Family(
        "underlay_filter_active", "1 if VXLAN is accepted from members only.",
        [Sample(vxlan_filter["active"])],
    )  # fmt: skip
    refused = Sample(vxlan_filter["refused"] or 0)
    yield Family(
        "underlay_filter_refused_total", "VXLAN packets from non-members, refused.", [refused]
    )
    paths = status.get("paths", [])  # as above
    yield Family(
        "path_up", "1 if the newest probes of the data path to the peer arrived.",
        [Sample(path["ok"], (("peer", path["peer"]),)) for path in paths],
    )  # fmt: skip
    yield Family(
        "path_mtu_bytes", "Largest underlay packet that is proven to reach the peer.",
        [
            Sample(path["size_carried"], (("peer", path["peer"]),))
            for path in paths
            if path["size_carried"] is not None
        ],
    )  # fmt: skip
    yield from _of_networks(status["networks"])


def _of_networks(networks: list[Mapping[str, Any]]) -> Iterator[Family]:
    def each(*path: str, **more: str) -> list[Sample]:
        found = []
        for network in networks:
            value: Any = network
            for key in path:
                value = value[key]
            found.append(Sample(value, (("network", network["name"]), *more.items())))
        return found

    yield Family(
        "endpoints", "Attached containers.",
        each("endpoints_local", where="here") + each("endpoints_total", where="all"),
    )  # fmt: skip
    yield Family(
        "kernel_rows", "Rows of a network's sandbox on this host.",
        each("rows", "desired", state="desired") + each("rows", "actual", state="actual"),
    )  # fmt: skip
    yield Family("passes_total", "Reconcile passes.", each("passes"))
    yield Family("passes_reading_total", "Reconcile passes that read the kernel.", each("reads"))
    yield Family("operations_total", "Kernel operations performed.", each("operations"))


def _labels(sample: Sample) -> str:
    if not sample.labels:
        return ""
    return "{" + ",".join(f'{name}="{_escaped(value)}"' for name, value in sample.labels) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
