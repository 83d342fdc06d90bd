"""Decide on connections by the records of this host.

Owns: what the records say of an address. Does not: own the rules (`core.policy.decision`), or know
what the kernel has.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from overlay.agent.records.directory import Directory
from overlay.agent.records.policy_catalog import PolicyCatalog
from overlay.agent.resolvers.container_resolvers import ContainerResolvers
from overlay.core.dataplane.port_security import allowed_addresses
from overlay.core.policy.decision import Decision, Party, decide
from overlay.model import Endpoint, Ip, Network, Subnet, has_default_deny, is_host


class PolicyDecider:
    """Decides as all hosts do, as far as this one has their records."""

    def __init__(
        self, directory: Directory, catalog: PolicyCatalog, resolvers: ContainerResolvers
    ) -> None:
        self._directory = directory
        self._catalog = catalog
        self._resolvers = resolvers

    def is_policed(self, network: Network) -> bool:
        """Return whether new connections on a network depend on policies."""
        return has_default_deny(network) or bool(self._catalog.policies(network.vni))

    def decide(
        self, network: Network, source: Party, destination: Party, protocol: int, port: int
    ) -> Decision:
        """Return the decision about a new connection on a network."""
        return decide(
            self._catalog.policies(network.vni),
            source,
            destination,
            protocol,
            port,
            default_deny=has_default_deny(network),
        )

    def at(self, network: Network, ip: Ip) -> Party:
        """Return the end of connections that an address is, on a network."""
        names = _names_of(ip, self._subnets())
        if _is_on_segment(ip):
            names |= {network.name}
        if any(ip == subnet.gateway for subnet in network.subnets):
            return Party(ip, is_host=True, is_gateway=True, networks=names)
        placed = self._directory.all_endpoints(network.vni)
        endpoint = _endpoint_at(ip, [each.endpoint for each in placed])
        if endpoint is not None:
            return _party(endpoint, ip, names)
        return Party(ip, networks=names, is_resolver=ip in self._resolvers.of(network))

    def endpoints(self, network: Network) -> Iterator[Party]:
        """Yield the known endpoints of a network, once for each address."""
        around = [
            (name, subnet)
            for name, subnet in self._subnets()
            if any(_overlap(subnet, each) for each in network.subnets)
        ]
        for placed in self._directory.all_endpoints(network.vni):
            for ip in placed.endpoint.ips:
                yield _party(placed.endpoint, ip, _names_of(ip, around))

    def _subnets(self) -> list[tuple[str, Subnet]]:
        networks = self._directory.networks()
        return [(network.name, subnet) for network in networks for subnet in network.subnets]


def _overlap(one: Subnet, other: Subnet) -> bool:
    return one.base in other or other.base in one


def _names_of(ip: Ip, subnets: Iterable[tuple[str, Subnet]]) -> frozenset[str]:
    return frozenset(name for name, subnet in subnets if ip in subnet)


def _party(endpoint: Endpoint, ip: Ip, names: frozenset[str]) -> Party:
    host = is_host(endpoint)
    return Party(ip, endpoint.name, endpoint.labels, is_host=host, networks=names)


def _endpoint_at(ip: Ip, endpoints: Iterable[Endpoint]) -> Endpoint | None:
    """Return whose address it is: that of one that may also use it comes second."""
    known = list(endpoints)
    owner = next((each for each in known if ip in each.ips), None)
    if owner is not None:
        return owner
    return next((each for each in known if ip in allowed_addresses(each)), None)


def _is_on_segment(ip: Ip) -> bool:
    """Return whether an address means some place on whichever segment it is used: a group, or a
    link-local one."""
    if len(ip) == 4:
        return ip[0] >> 4 == 0xE or ip == b"\xff" * 4
    return ip[0] == 0xFF or (ip[0] == 0xFE and ip[1] >> 6 == 0b10)
