"""Find the two ends of a way: containers, host endpoints and gateways, by name or address.

Owns: what a name or an address means when two ends must share a network, and the errors when they
do not. Does not: know the kernel, or how a frame travels.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.agent.records.directory import Directory, PlacedEndpoint
from overlay.agent.state.attachments import Attachments
from overlay.errors import ConflictError, NotFoundError
from overlay.model import Endpoint, Ip, Network, NodeId, ip_text, is_host, parse_ip


class PartyKind(enum.StrEnum):
    """The kind of one end of a way."""

    CONTAINER = "container"
    HOST = "host"  # a host's own endpoint on an exposed network
    GATEWAY = "gateway"  # each host has it, in its sandbox
    OUTSIDE = "outside"  # behind a VTEP of a BGP EVPN fabric, where no agent runs
    PLUGGED = "plugged"  # a machine behind an interface that a member has plugged into the network


OUTSIDE_ID: Final = bytes(8)
"""The id of an endpoint behind an outside VTEP: no record has it."""
NOWHERE: Final = NodeId(b"")
"""The node of such an endpoint: none."""


@dataclass(frozen=True, slots=True)
class Party:
    """One end of a way on one network; `ips` are those that the given text allows."""

    kind: PartyKind
    network: Network
    node_id: NodeId
    name: str
    ips: tuple[Ip, ...]
    endpoint: Endpoint | None  # None: the gateway
    vtep: Ip | None = None  # of one that is outside


@dataclass(frozen=True, slots=True)
class Pair:
    """Two ends on one network, or on two that a router connects, with the address of each."""

    source: Party
    target: Party
    source_ip: Ip
    target_ip: Ip

    @property
    def network(self) -> Network:
        """The network of the source, and of both unless a router connects them."""
        return self.source.network

    @property
    def is_between_networks(self) -> bool:
        """Whether a router connects the networks of the two."""
        return self.source.network.vni != self.target.network.vni

    @property
    def is_local(self) -> bool:
        """Whether both are on one host."""
        return self.source.node_id == self.target.node_id


class PartyFinder:
    """Finds ends of ways in this node's records."""

    def __init__(self, directory: Directory, attachments: Attachments, fabric: FabricTable) -> None:
        self._directory = directory
        self._fabric = fabric
        self._attachments = attachments

    def targets(self, text: str, network: str | None) -> list[Party]:
        """Return what a name or address may mean, anywhere in the cluster; raises NotFoundError."""
        searched = self._networks(network)
        ip = _parsed(text)
        if ip is not None:
            return self._with_address(ip, searched)
        found = self._named(text, searched) or self._hosts_named(text, searched)
        if not found:
            raise NotFoundError(
                f"there is no container {text!r}",
                why=_searched_text(searched),
                hint="overlayd endpoint ls   (every container of the networks known here)",
            )
        return found

    def anywhere(self, text: str, network: str | None) -> list[Party]:
        """Return what a target of an attach here, a name or an address means, on any host.

        Raises NotFoundError.
        """
        return self._with_target(text, network) or self.targets(text, network)

    def own_sources(self, text: str, network: str | None, *, otherwise: str = "") -> list[Party]:
        """Return the containers of this host that a name, target or address means.

        Raises NotFoundError, with the host that has it; `otherwise` ends the hint.
        """
        found = [
            each for each in self.anywhere(text, network) if each.kind is not PartyKind.GATEWAY
        ]
        here = [each for each in found if each.node_id == self._directory.own]
        if here:
            return here
        places = sorted({self._directory.node_name(each.node_id) for each in found})
        where = " and ".join(places) or "no host"
        raise NotFoundError(
            f"container {text} is not on this host",
            why=f"it is on {where}",
            hint=f"Run this on {where}{otherwise}",
        )

    def default_sources(self, targets: Sequence[Party]) -> list[Party]:
        """Return what this host can send from to one of some targets, the best first.

        That is a container on the target's network, else this host's own endpoint there, else the
        gateway, whose answers arrive only from containers of this host. Raises ConflictError.
        """
        own = self._directory.own
        containers: list[Party] = []
        others: list[Party] = []
        for target in targets:
            placed = [
                each
                for each in self._directory.all_endpoints(target.network.vni)
                if each.origin == own and each.endpoint != target.endpoint
            ]
            parties = sorted((_party(target.network, each) for each in placed), key=_by_name)
            containers += [each for each in parties if each.kind is PartyKind.CONTAINER]
            others += [each for each in parties if each.kind is PartyKind.HOST]
            if target.node_id == own and target.kind is not PartyKind.GATEWAY:
                others.append(self._gateway(target.network))
        if containers or others:
            return [*containers, *others]
        names = " or ".join(sorted({each.network.name for each in targets}))
        inside = [each for each in targets if each.vtep is None]
        where = " or ".join(sorted({self._directory.node_name(each.node_id) for each in inside}))
        raise ConflictError(
            f"this host has nothing to send from on network {names}",
            why="no container here is attached to it, and the host is not on it either",
            hint=f"Run this on a host with a container there{where and f', such as {where}'}; or "
            f"attach one here: overlayd container add probe --network {targets[0].network.name}",
        )

    def pair(self, sources: Sequence[Party], targets: Sequence[Party], family: int | None) -> Pair:
        """Return the first source and target that share a network and an IP version.

        Else the first whose networks a router connects. Raises ConflictError if there are none.
        """
        found = _first_pair(sources, targets, family, lambda one, other: one.vni == other.vni)
        return found or self._routed_pair(sources, targets, family)

    def _routed_pair(
        self, sources: Sequence[Party], targets: Sequence[Party], family: int | None
    ) -> Pair:
        reached = {
            each.network.vni: {other.vni for other in self._directory.routed_with(each.network)}
            for each in sources
        }
        found = _first_pair(
            sources, targets, family, lambda one, other: other.vni in reached[one.vni]
        )
        if found is None:
            raise _no_pair(sources, targets, family)
        return found

    # --- lookups ------------------------------------------------------------------------

    def _networks(self, name: str | None) -> list[Network]:
        return self._directory.networks() if name is None else [self._directory.network(name)]

    def _named(self, text: str, networks: Iterable[Network]) -> list[Party]:
        """Return the endpoints with a name; those with an alias where no name is so."""
        wanted = text.lower()
        by_name: list[Party] = []
        by_alias: list[Party] = []
        for network in networks:
            for placed in self._directory.endpoints(network.vni):
                if placed.endpoint.name.lower() == wanted:
                    by_name.append(_party(network, placed))
                elif wanted in (alias.lower() for alias in placed.endpoint.aliases):
                    by_alias.append(_party(network, placed))
        return sorted(by_name or by_alias, key=_by_name)

    def _hosts_named(self, name: str, networks: Iterable[Network]) -> list[Party]:
        """Return a node's own endpoints, on the networks that it is exposed on."""
        return [
            _party(network, placed)
            for network in networks
            for placed in self._directory.host_endpoints(network.vni)
            if self._directory.node_name(placed.origin) == name
        ]

    def _with_target(self, text: str, network: str | None) -> list[Party]:
        """Return this host's endpoints whose container was attached by this text."""
        allowed = {each.vni for each in self._networks(network)}
        found: list[Party] = []
        for attachment in self._attachments.values():
            known = self._directory.network_by_vni(attachment.vni)
            endpoint = self._directory.endpoint_of(attachment)
            same = text in (attachment.target, attachment.target.partition(":")[2])
            if same and known is not None and endpoint is not None and known.vni in allowed:
                found.append(_party(known, PlacedEndpoint(self._directory.own, endpoint)))
        return sorted(found, key=_by_name)

    def _with_address(self, ip: Ip, networks: Sequence[Network]) -> list[Party]:
        on = [each for each in networks if any(ip in subnet for subnet in each.subnets)]
        found = list(self._having(ip, on))
        if found:
            return found
        if on:
            outside = list(self._outside(ip, on))
            if outside:
                return outside
            names = " or ".join(each.name for each in on)
            raise NotFoundError(
                f"no container has the address {ip_text(ip)}",
                why=f"it is free on network {names}, as far as this host knows",
                hint=f"overlayd endpoint ls --network {on[0].name}",
            )
        raise NotFoundError(
            f"{ip_text(ip)} is not an address of the overlay",
            why=_searched_text(networks),
            hint=f"For other addresses: ping {ip_text(ip)}, in a container "
            f"'overlayd container exec CONTAINER ping {ip_text(ip)}'",
        )

    def _outside(self, ip: Ip, networks: Iterable[Network]) -> Iterator[Party]:
        """Yield an address that a BGP EVPN fabric has, or a machine behind a plug, by network."""
        for network in networks:
            placed = outside_endpoint(self._fabric, network, ip)
            if placed is not None:
                vtep, endpoint = placed
                is_plugged = self._fabric.is_plugged(network.vni, ip)
                kind = PartyKind.PLUGGED if is_plugged else PartyKind.OUTSIDE
                yield Party(kind, network, NOWHERE, endpoint.name, (ip,), endpoint, vtep)

    def _having(self, ip: Ip, networks: Iterable[Network]) -> Iterator[Party]:
        for network in networks:
            if any(ip == subnet.gateway for subnet in network.subnets):
                gateway = self._gateway(network)
                yield Party(gateway.kind, network, gateway.node_id, gateway.name, (ip,), None)
            for placed in self._directory.all_endpoints(network.vni):
                if ip in placed.endpoint.ips:
                    party = _party(network, placed)
                    yield Party(
                        party.kind, network, party.node_id, party.name, (ip,), party.endpoint
                    )

    def _gateway(self, network: Network) -> Party:
        """Return this host's gateway of a network."""
        ips = tuple(subnet.gateway for subnet in network.subnets)
        own = self._directory.own
        return Party(PartyKind.GATEWAY, network, own, f"gateway of {network.name}", ips, None)


def outside_endpoint(fabric: FabricTable, network: Network, ip: Ip) -> tuple[Ip, Endpoint] | None:
    """Return the VTEP of an address that the fabric has, and what is known of its container."""
    found = fabric.place_of(network.vni, [ip])
    if found is None:
        return None
    return found.vtep, Endpoint(OUTSIDE_ID, network.vni, ip_text(ip), found.mac, (ip,))


def node_label(directory: Directory, party: Party) -> str:
    """Return the name of a party's host, or the VTEP of one outside."""
    if party.vtep is not None:
        return f"VTEP {ip_text(party.vtep)}"
    return directory.node_name(party.node_id)


def _party(network: Network, placed: PlacedEndpoint) -> Party:
    endpoint = placed.endpoint
    kind = PartyKind.HOST if is_host(endpoint) else PartyKind.CONTAINER
    return Party(kind, network, placed.origin, endpoint.name, endpoint.ips, endpoint)


def _by_name(party: Party) -> tuple[str, str, tuple[Ip, ...]]:
    return (party.network.name, party.name, party.ips)


def _parsed(text: str) -> Ip | None:
    try:
        return parse_ip(text)
    except ValueError:
        return None


def _searched_text(networks: Iterable[Network]) -> str:
    names = ", ".join(each.name for each in networks)
    return f"networks searched: {names}" if names else "the cluster has no network"


def _first_pair(
    sources: Sequence[Party],
    targets: Sequence[Party],
    family: int | None,
    are_connected: Callable[[Network, Network], bool],
) -> Pair | None:
    sizes = {4: 4, 6: 16}
    for source in sources:
        for target in targets:
            if not are_connected(source.network, target.network):
                continue
            for ip in target.ips:
                own = next((each for each in source.ips if len(each) == len(ip)), None)
                if own is not None and (family is None or len(ip) == sizes[family]):
                    return Pair(source, target, own, ip)
    return None


def _no_pair(
    sources: Sequence[Party], targets: Sequence[Party], family: int | None
) -> ConflictError:
    source, target = sources[0], targets[0]
    common = {each.network.vni for each in sources} & {each.network.vni for each in targets}
    if common:
        version = f"IPv{family}" if family else "IP version"
        return ConflictError(
            f"{source.name} and {target.name} have no {version} in common",
            why=f"{source.name} has {_ips(source)}, {target.name} has {_ips(target)}",
            hint="overlayd endpoint ls   (their addresses)",
        )
    return ConflictError(
        f"{source.name} and {target.name} are not on one network",
        why=f"{source.name} is on {_names(sources)}, {target.name} is on {_names(targets)}: "
        "no router connects them",
        hint=f"overlayd router create NAME --network {source.network.name} --network "
        f"{target.network.name}; or put {source.name} on both, on its host: overlayd attach "
        f"{source.name} --network {target.network.name}",
    )


def _ips(party: Party) -> str:
    return " and ".join(ip_text(ip) for ip in party.ips)


def _names(parties: Iterable[Party]) -> str:
    return " and ".join(sorted({each.network.name for each in parties}))
