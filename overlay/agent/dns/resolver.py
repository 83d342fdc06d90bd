"""Resolve names and addresses for the DNS clients of this host.

A name with dots, such as `www.example.org`, is answered below the domain only: otherwise any
member, and any user of the local API, could take any host of the Internet from the containers of
its networks. A network with the label `overlayd.any-name` answers it as it is, too.

Owns: `NAME`, `NAME.NETWORK.DOMAIN`, aliases, custom records and reverse names; which of them a
client may see. Does not: know sockets or the DNS format.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from overlay.agent.dns.index import NameIndexes
from overlay.agent.dns.records.tied_records import tied_records
from overlay.agent.dns.service_records import ServiceRecord, records_of, split_srv_name
from overlay.agent.process.config import DNS_DOMAIN_DEFAULT
from overlay.agent.records.directory import Directory, PlacedEndpoint
from overlay.core.protocol.messages import MemberState
from overlay.core.services.derivation import PlacedService
from overlay.errors import UsageError
from overlay.model import Endpoint, Ip, Network, NodeId, has_any_name, shares_name

Found = TypeVar("Found")
_REVERSE_V4 = ".in-addr.arpa"
_REVERSE_V6 = ".ip6.arpa"


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """An authoritative answer. With nothing in it, the name has no such record."""

    exists: bool
    ips: tuple[Ip, ...] = ()
    names: tuple[str, ...] = ()
    services: tuple[ServiceRecord, ...] = ()  # with full names


class ClientNetworks(Protocol):
    """Which networks a DNS client is on."""

    def networks(self, network: Network, ip: Ip) -> list[Network]:
        """Return the networks of the client with this address on `network`."""


class Resolver:
    """Answers from the records, as one client may see them."""

    def __init__(
        self, directory: Directory, clients: ClientNetworks, domain: str = DNS_DOMAIN_DEFAULT
    ) -> None:
        self._directory = directory
        self._clients = clients
        self._domain = domain
        self._indexes = NameIndexes(directory)

    def records_changed(self, vni: int | None) -> None:
        """Note that records of a network (None: of any), or the members' states, changed."""
        self._indexes.mark_stale(vni)

    def forward(self, network: Network, client: Ip, name: str) -> DnsAnswer | None:
        """Return the addresses of `name` as `client` on `network` may see them.

        Returns None for a name that the host's resolvers must answer. This node answers every
        name in its own domain, but a bare name only if an endpoint or custom record has it.
        """
        seen = self._clients.networks(network, client)
        return self.lookup([network, *(item for item in seen if item != network)], name)

    def lookup(self, networks: list[Network], name: str) -> DnsAnswer | None:
        """Return the answer for a client on exactly these networks; the first takes precedence.

        Names of networks that routers lead to are answered below the domain, with the network's.
        """
        labels = name.rstrip(".").lower()
        suffix = f".{self._domain}"
        if labels == self._domain:
            return DnsAnswer(exists=True)
        if labels.endswith(suffix):
            return self._qualified(labels.removesuffix(suffix), networks)
        answering = [network for network in networks if "." not in labels or has_any_name(network)]
        found = self._addresses(labels, answering)
        return found if found.ips else None

    def service_records(self, network: Network, client: Ip, name: str) -> DnsAnswer | None:
        """Return the SRV records of `_http._tcp.web`, as `client` on `network` may see them.

        Returns None for a name that the host's resolvers must answer.
        """
        seen = self._clients.networks(network, client)
        networks = [network, *(item for item in seen if item != network)]
        asked = split_srv_name(self.below_domain(name))
        if asked is not None:
            port_name, protocol, service = asked
            for each in networks:
                host = service.removesuffix(f".{each.name.lower()}")
                index = self._indexes.of(each.vni)
                entry = index.services.get(service) or index.services.get(host)
                if entry is not None:
                    suffix = f"{each.name}.{self._domain}"
                    found = (
                        record._replace(target=f"{record.target}.{suffix}")
                        for record in records_of(entry, port_name, protocol)
                    )
                    return DnsAnswer(exists=True, services=tuple(found))
        answer = self.lookup(networks, name)
        return None if answer is None else DnsAnswer(exists=answer.exists)

    def below_domain(self, name: str) -> str:
        """Return a name in lower case, without the cluster's domain at its end."""
        return name.rstrip(".").lower().removesuffix(f".{self._domain}")

    def local_name(self, network: Network, name: str) -> str:
        """Return what to store for a custom record of a name: the part below the domain.

        Raises UsageError for a name that would never be answered on the network.
        """
        local = self.below_domain(name)
        if local == name.rstrip(".").lower() and "." in local and not has_any_name(network):
            raise UsageError(
                f"{name} is outside the domain {self._domain}",
                why=f"network {network.name} answers names with dots below that domain only",
                hint=f"Add {name}.{self._domain}, or create the network with --any-name",
                field="name",
            )
        return local

    def _qualified(self, labels: str, seen: list[Network]) -> DnsAnswer:
        """Resolve `web.blue`, or `web` on any network; a dotted endpoint name takes precedence."""
        whole = self._addresses(labels, seen)
        if whole.ips:
            return whole
        for network in seen:
            host = labels.removesuffix(f".{network.name.lower()}")
            found = self._addresses(host, [network])
            if host != labels and found.ips:
                return found
        routed = self._routed_with(seen)
        for network in routed:
            host = labels.removesuffix(f".{network.name.lower()}")
            found = self._addresses(host, [network], services=False)
            if host != labels and found.ips:
                return found
        known = (*seen, *routed)
        return DnsAnswer(exists=any(network.name.lower() == labels for network in known))

    def _routed_with(self, networks: Sequence[Network]) -> list[Network]:
        """Return the networks that routers lead to from some networks, and that are none of them.

        Not their services: a virtual address is one for clients on its network alone.
        """
        own = {network.vni for network in networks}
        found = {
            each.vni: each for network in networks for each in self._directory.routed_with(network)
        }
        return [found[vni] for vni in sorted(found.keys() - own)]

    def _addresses(
        self, name: str, networks: Iterable[Network], *, services: bool = True
    ) -> DnsAnswer:
        """Return all addresses that the first network with this name has for it."""
        for network in networks:
            index = self._indexes.of(network.vni)
            owners = _owners(self._alive(index.by_name.get(name, ())))
            entry = index.services.get(name) if services else None
            if not owners and entry is not None:
                return DnsAnswer(exists=True, ips=_service_ips(entry))
            matching = [*self._alive(index.by_alias.get(name, ())), *owners]
            ips = [ip for endpoint in matching for ip in endpoint.ips]
            if not owners:  # a custom record cannot take over a container's name
                ips += index.custom.get(name, [])
                tied = self._alive(index.tied.get(name, ()))
                ips += [ip for record in tied for ip in record.ips]
            if ips:
                return DnsAnswer(exists=True, ips=tuple(sorted(set(ips))))
        return DnsAnswer(exists=False)

    def reverse(self, network: Network, client: Ip, name: str) -> DnsAnswer | None:
        """Return the names for a name in in-addr.arpa or ip6.arpa.

        Returns None for an address that the host's resolvers must answer.
        """
        ip = address_of_reverse(name)
        if ip is None:
            return None
        seen = self._clients.networks(network, client)
        return self.reverse_lookup([*seen, *self._routed_with(seen)], ip)

    def reverse_lookup(self, networks: list[Network], ip: Ip) -> DnsAnswer | None:
        """Return the full names of an address on these networks; None if on none of them."""
        for network in networks:
            index = self._indexes.of(network.vni)
            names = [endpoint.name for endpoint in self._alive(index.by_ip.get(ip, ()))]
            names += index.custom_by_ip.get(ip, [])
            names += [record.name for record in self._alive(index.tied_by_ip.get(ip, ()))]
            names += [index.services_by_ip[ip]] if ip in index.services_by_ip else []
            if names or any(ip in subnet for subnet in network.subnets):
                full = (f"{name}.{network.name}.{self._domain}" for name in dict.fromkeys(names))
                return DnsAnswer(exists=bool(names), names=tuple(full))
        return None

    def all_names(self, network: Network) -> dict[str, tuple[Ip, ...]]:
        """Return every name that is answered on a network, from a single pass over its records."""
        named: dict[str, list[Endpoint]] = {}
        found: dict[str, set[Ip]] = {}
        custom = self._custom_records(network)
        for endpoint in self._alive(
            map(PlacedEndpoint._make, self._directory.endpoints(network.vni))
        ):
            named.setdefault(endpoint.name.lower(), []).append(endpoint)
            for tied in tied_records(endpoint):
                custom.setdefault(tied.name, []).extend(tied.ips)
            for alias in endpoint.aliases:
                found.setdefault(alias.lower(), set()).update(endpoint.ips)
        for name, ips in custom.items():
            if name not in named:
                found.setdefault(name, set()).update(ips)
        for name, endpoints in named.items():
            for endpoint in _owners(endpoints):
                found.setdefault(name, set()).update(endpoint.ips)
        for entry in self._directory.services(network.vni):
            if entry.service.name.lower() not in named:
                found[entry.service.name.lower()] = set(_service_ips(entry))
        shown = (
            found if has_any_name(network) else {self._shown(name): found[name] for name in found}
        )
        return {name: tuple(sorted(shown[name])) for name in sorted(shown)}

    def _shown(self, name: str) -> str:
        """Return the name by which a stored one is answered."""
        return f"{name}.{self._domain}" if "." in name else name

    def _custom_records(self, network: Network) -> dict[str, list[Ip]]:
        """Return the custom records of a network by name, from all hosts."""
        found: dict[str, list[Ip]] = {}
        for _, record in self._directory.custom_records(network.vni):
            found.setdefault(record.name.lower(), []).extend(record.ips)
        return found

    def _alive(self, placed: Iterable[tuple[NodeId, Found]]) -> Iterator[Found]:
        """Yield what is not a dead node's; its endpoints stay reachable by address only."""
        for origin, found in placed:
            state = self._directory.node_state(origin)
            if state in (MemberState.ALIVE, MemberState.SUSPECT):
                yield found


def _owners(named: Iterable[Endpoint]) -> list[Endpoint]:
    """Return which of the endpoints with one name it stands for: all that share it, or one.

    Of several that do not share it, created during a partition, every node answers with the same
    one (`core.dataplane.conflicts`).
    """
    found = sorted(named, key=lambda each: each.endpoint_id)
    if found and shares_name(found[0]):
        return [each for each in found if shares_name(each)]
    return found[:1]


def _service_ips(entry: PlacedService) -> tuple[Ip, ...]:
    """Return the virtual addresses of a service, or those of its backends if it has none."""
    found = entry.service.ips or [ip for each in entry.ready() for ip in each.endpoint.ips]
    return tuple(sorted(set(found)))


def address_of_reverse(name: str) -> Ip | None:
    """Return the address that a reverse name stands for, or None.

    See RFC 1035 section 3.5 and RFC 3596 section 2.5.
    """
    labels = name.rstrip(".").lower()
    try:
        if labels.endswith(_REVERSE_V4):
            parts = labels.removesuffix(_REVERSE_V4).split(".")
            return Ip(ipaddress.IPv4Address(".".join(reversed(parts))).packed)
        if labels.endswith(_REVERSE_V6):
            digits = "".join(reversed(labels.removesuffix(_REVERSE_V6).split(".")))
            return Ip(bytes.fromhex(digits)) if len(digits) == 32 else None
    except ValueError:
        return None
    return None
