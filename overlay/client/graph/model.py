"""The contents of a picture of a cluster: hosts, their containers, and the paths between hosts.

Owns: these values, read from the API's answers. Does not: know any form of picture. A host knows
only its own paths, so these are the only ones there are.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple


class GraphContainer(NamedTuple):
    """A container on one network; `addresses` as text."""

    name: str
    network: str
    addresses: tuple[str, ...]

    @property
    def label(self) -> str:
        """Its name and first address."""
        return f"{self.name} {self.addresses[0]}" if self.addresses else self.name


class GraphHost(NamedTuple):
    """A member, and the containers on it."""

    name: str
    address: str
    state: str
    is_here: bool
    containers: tuple[GraphContainer, ...]


class GraphPath(NamedTuple):
    """The data path between this host and another.

    `rtt_ms` is that of gossip; `size_carried` is the largest packet that is proven to arrive.
    """

    peer: str
    state: str  # ok, lost, silent, unknown, "1400 bytes only", or that of a member not alive
    rtt_ms: float | None
    size_carried: int | None = None  # bytes; None: not known

    @property
    def kind(self) -> str:
        """Its state in one word: ok, limited, lost, unknown, or away: no live member.

        One whose peer reports no probes is shown with those that are lost.
        """
        if self.state in ("ok", "lost", "unknown"):
            return self.state
        if self.state == "silent":
            return "lost"
        return "limited" if self.state.endswith("only") else "away"

    @property
    def label(self) -> str:
        """The state, and the round-trip time where there is one."""
        if self.state == "ok" and self.rtt_ms is not None:
            return f"{self.rtt_ms:.1f} ms"
        return self.state


class Graph(NamedTuple):
    """A cluster as this host knows it. `elsewhere`: networks whose containers it does not know."""

    hosts: tuple[GraphHost, ...]
    networks: tuple[str, ...]
    paths: tuple[GraphPath, ...]
    elsewhere: tuple[str, ...]

    @property
    def here(self) -> str:
        """The name of this host, or empty."""
        return next((host.name for host in self.hosts if host.is_here), "")


def read(
    members: Sequence[Mapping[str, Any]],
    endpoints: Mapping[str, Any],
    only: str = "",
) -> Graph:
    """Return the graph of the answers to GET /v1/members and /v1/endpoints.

    `only`: of one network, and the hosts that have a container on it.
    """
    shown = [each for each in endpoints["endpoints"] if only in ("", each["network"])]
    by_node: dict[str, list[GraphContainer]] = {}
    for each in sorted(shown, key=lambda each: (each["network"], each["name"])):
        container = GraphContainer(each["name"], each["network"], tuple(each["ips"]))
        by_node.setdefault(each["node"], []).append(container)
    hosts = tuple(
        GraphHost(
            member["name"],
            member["address"],
            member["state"],
            bool(member["self"]),
            tuple(by_node.get(member["name"], ())),
        )
        for member in sorted(members, key=lambda member: str(member["name"]))
        if not only or member["name"] in by_node or member["self"]
    )
    known = {host.name for host in hosts}
    paths = tuple(
        GraphPath(
            member["name"],
            _state(member),
            member["rtt_ms"],
            None if member["path"] is None else member["path"]["size_carried"],
        )
        for member in members
        if not member["self"] and member["name"] in known
    )
    return Graph(hosts, _networks(hosts), paths, tuple(endpoints.get("elsewhere", ())))


def _networks(hosts: Iterable[GraphHost]) -> tuple[str, ...]:
    return tuple(sorted({each.network for host in hosts for each in host.containers}))


def _state(member: Mapping[str, Any]) -> str:
    if member["state"] != "alive":
        return str(member["state"])
    path = member["path"]
    if path is None:
        return "unknown"  # no network in common: nothing is probed
    ways = {path["sending"], path["receiving"]}
    if ways & {"lost", "damaged"}:
        return "lost"
    if "silent" in ways:  # it reports no probes: whether they arrive is not known
        return "silent"
    if path["size_carried"] is not None and path["size_carried"] < path["size_expected"]:
        return f"{path['size_carried']} bytes only"
    return "ok" if ways == {"ok"} else "unknown"
