"""The items of the page, made from the agent's answers: the cluster, hosts, networks, containers.

Each item has a key (`host/vm1`) and JSON that browsers receive, so that two states of the page
differ in items. Times are points in time, not durations: an item changes only if something has.

Does not: know how the state of a path or the color of a network is found (`client.graph`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from overlay.client.api import JsonObject
from overlay.client.graph import model
from overlay.client.graph.colors import COLORS
from overlay.web.agent_link import Answers

Items = Mapping[str, JsonObject]
SHAPE_COUNT = 5  # with the colors, 40 networks look different; neighbors differ in both
_CLOCK_JITTER_S = 2.0
_ENDPOINT_FIELDS = (
    "id", "name", "network", "ips", "mac", "node", "local", "target", "ifname", "aliases", "labels",
    "rate_in", "rate_out",
)  # fmt: skip
_NETWORK_FIELDS = (
    "name", "vni", "driver", "parent", "encrypted", "internal", "mtu", "mtu_why", "hosts", "here",
    "creator", "endpoints", "exposed", "exposed_why", "labels",
)  # fmt: skip


class PageChange(NamedTuple):
    """The changes that turn one state of the page into another."""

    put: dict[str, JsonObject]
    drop: list[str]


def change(before: Items, after: Items) -> PageChange:
    """Return the items that are new or changed, and the keys of those that are gone."""
    put = {key: item for key, item in after.items() if before.get(key) != item}
    return PageChange(put, [key for key in before if key not in after])


class PageItems:
    """Makes items; a network keeps its color and shape as long as this object lives."""

    def __init__(self) -> None:
        self._marks: dict[str, int] = {}
        self._since: dict[str, float] = {}

    def make(self, answers: Answers, now: float) -> dict[str, JsonObject]:
        """Return the items of one moment; `now` is Unix time."""
        graph = model.read(answers.members, answers.endpoints)
        paths = {path.peer: path for path in graph.paths}
        known = self._since
        self._since = {}  # only of what exists now
        items: dict[str, JsonObject] = {"cluster": _cluster(answers, graph)}
        for member in sorted(answers.members, key=lambda each: str(each["name"])):
            host = self._host(member, paths.get(member["name"]), known, now)
            items[f"host/{member['name']}"] = host
        for network in sorted(answers.networks, key=lambda each: str(each["name"])):
            items[f"network/{network['name']}"] = self._network(network)
        for each in answers.endpoints["endpoints"]:
            items[f"container/{each['id']}"] = _chosen(each, _ENDPOINT_FIELDS)
        return items

    def _host(
        self,
        member: JsonObject,
        path: model.GraphPath | None,
        known: Mapping[str, float],
        now: float,
    ) -> JsonObject:
        name = member["name"]
        host = _chosen(
            member,
            ("name", "id", "address", "version", "state", "authority", "certificate_expires"),
        )
        host |= {
            "here": member["self"],
            "since": self._steady(name, now - member["since_s"], known),
            "behind": member["logs"]["behind"],
            "path": None,
        }
        if path is not None:
            probed = member["path"] or {}
            host["path"] = {
                "kind": path.kind,
                "state": path.state,
                "rtt_ms": None if path.rtt_ms is None else float(f"{path.rtt_ms:.2g}"),
                "size_carried": path.size_carried,
                "sending": probed.get("sending"),
                "receiving": probed.get("receiving"),
                "size_expected": probed.get("size_expected"),
                "since": self._steady(f"path {name}", now - probed["since_s"], known)
                if probed
                else None,
            }
        return host

    def _steady(self, what: str, moment: float, known: Mapping[str, float]) -> float:
        """Return a point in time, as before if it differs by no more than clocks do."""
        before = known.get(what, moment)
        kept = before if abs(moment - before) <= _CLOCK_JITTER_S else moment
        self._since[what] = kept
        return round(kept)

    def _network(self, network: JsonObject) -> JsonObject:
        number = self._marks.setdefault(network["name"], len(self._marks))
        return _chosen(network, _NETWORK_FIELDS) | {
            "subnets": [each["subnet"] for each in network["subnets"]],
            "color": number % len(COLORS),
            "shape": number % SHAPE_COUNT,
        }


def _cluster(answers: Answers, graph: model.Graph) -> JsonObject:
    status = answers.status
    return {
        "id": (status["cluster"] or {}).get("id"),
        "here": graph.here,
        "version": status["version"],
        "vxlan_port": status.get("vxlan_port"),
        "overlay_mtu": status.get("overlay_mtu"),
        "health": status["health"],
        "notices": status.get("notices", []),
        "elsewhere": list(graph.elsewhere),
    }


def _chosen(item: JsonObject, fields: tuple[str, ...]) -> JsonObject:
    """Return some fields of an answer; an older agent may not have all of them."""
    return {name: item.get(name) for name in fields}
