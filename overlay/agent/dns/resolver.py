"""Which names a container may ask for, and what they mean: the answers of the DNS server.

Owns: `NAME`, `NAME.NETWORK.DOMAIN`, aliases, given names, reverse names; who may see what. Must
not know: sockets, the wire format of DNS.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from overlay.agent.dns.index import NameIndexes
from overlay.agent.process.config import DNS_DOMAIN_DEFAULT
from overlay.agent.records.directory import Directory, PlacedEndpoint
from overlay.core.protocol.messages import MemberState
from overlay.model import Endpoint, Ip, Network

_REVERSE_V4 = ".in-addr.arpa"
_REVERSE_V6 = ".ip6.arpa"


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """Ours to answer: the addresses or names found; none means the name has no such record."""

    exists: bool
    ips: tuple[Ip, ...] = ()
    names: tuple[str, ...] = ()


class Resolver:
    """Questions to the records, on behalf of one container."""

    def __init__(self, directory: Directory, domain: str = DNS_DOMAIN_DEFAULT) -> None:
        self._directory = directory
        self._indexes = NameIndexes(directory)
        self.records_changed = self._indexes.changed  # to be told of changed records, and members
        self._domain = domain
        self.networks_of: Callable[[Network, Ip], list[Network]] = lambda network, _ip: [network]

    def forward(self, network: Network, asker: Ip, name: str) -> DnsAnswer | None:
        """Return the addresses of `name` as `asker` on `network` may see them.

        None: not ours, ask the host's resolvers. A name in our domain is always ours; a bare
        one only if an endpoint has it.
        """
        seen = self.networks_of(network, asker)
        return self.lookup([network, *(item for item in seen if item != network)], name)

    def lookup(self, networks: list[Network], name: str) -> DnsAnswer | None:
        """Return what a container on just these networks is told; the first has precedence."""
        labels = name.rstrip(".").lower()
        suffix = f".{self._domain}"
        if labels == self._domain:
            return DnsAnswer(exists=True)
        if labels.endswith(suffix):
            return self._qualified(labels.removesuffix(suffix), networks)
        found = self._addresses(labels, networks)
        return found if found.ips else None

    def _qualified(self, labels: str, seen: list[Network]) -> DnsAnswer:
        """`web.blue`, or `web` in any network seen; a dotted endpoint name wins over a network."""
        whole = self._addresses(labels, seen)
        if whole.ips:
            return whole
        for network in seen:
            host = labels.removesuffix(f".{network.name.lower()}")
            found = self._addresses(host, [network])
            if host != labels and found.ips:
                return found
        return DnsAnswer(exists=any(network.name.lower() == labels for network in seen))

    def _addresses(self, name: str, networks: Iterable[Network]) -> DnsAnswer:
        """Ask the networks in turn; the first that has the name gives all its addresses."""
        for network in networks:
            index = self._indexes.of(network.vni)
            # Aliases may be shared; a name that was given twice is its winner's alone, on every
            # node the same (`core.dataplane.conflicts`).
            called = self._alive(index.by_name.get(name, ()))
            has_name = min(called, key=lambda item: item.endpoint_id, default=None)
            answering = list(self._alive(index.by_alias.get(name, ())))
            if has_name is not None:
                answering.append(has_name)
            ips = [ip for endpoint in answering for ip in endpoint.ips]
            if has_name is None:  # nobody can give away what a container is called
                ips += index.custom.get(name, [])
            if ips:
                return DnsAnswer(exists=True, ips=tuple(sorted(set(ips))))
        return DnsAnswer(exists=False)

    def reverse(self, network: Network, asker: Ip, name: str) -> DnsAnswer | None:
        """Return the names of an address in in-addr.arpa or ip6.arpa; None if not ours."""
        ip = address_of_reverse(name)
        if ip is None:
            return None
        return self.reverse_lookup(self.networks_of(network, asker), ip)

    def reverse_lookup(self, networks: list[Network], ip: Ip) -> DnsAnswer | None:
        """Return the full names of an address on these networks; None if on none of them."""
        for seen in networks:
            index = self._indexes.of(seen.vni)
            called = [endpoint.name for endpoint in self._alive(index.by_ip.get(ip, ()))]
            called += index.custom_by_ip.get(ip, [])
            if called or any(ip in subnet for subnet in seen.subnets):
                full = (f"{name}.{seen.name}.{self._domain}" for name in dict.fromkeys(called))
                return DnsAnswer(exists=bool(called), names=tuple(full))
        return None

    def all_names(self, network: Network) -> dict[str, tuple[Ip, ...]]:
        """Return every name and alias that is answered on a network, in one pass."""
        winners: dict[str, Endpoint] = {}
        found: dict[str, set[Ip]] = {}
        for endpoint in self._alive(
            map(PlacedEndpoint._make, self._directory.endpoints(network.vni))
        ):
            name = endpoint.name.lower()
            winner = winners.setdefault(name, endpoint)
            if endpoint.endpoint_id < winner.endpoint_id:
                winners[name] = endpoint
            for alias in endpoint.aliases:
                found.setdefault(alias.lower(), set()).update(endpoint.ips)
        for name, ips in self._custom_records(network).items():
            if name not in winners:
                found.setdefault(name, set()).update(ips)
        for name, endpoint in winners.items():
            found.setdefault(name, set()).update(endpoint.ips)
        return {name: tuple(sorted(found[name])) for name in sorted(found)}

    def _custom_records(self, network: Network) -> dict[str, list[Ip]]:
        """Return what people gave names to on a network, on all hosts together."""
        found: dict[str, list[Ip]] = {}
        for _, given in self._directory.custom_records(network.vni):
            found.setdefault(given.name.lower(), []).extend(given.ips)
        return found

    def _alive(self, placed: Iterable[PlacedEndpoint]) -> Iterator[Endpoint]:
        """Endpoints of nodes that are dead or gone stay forwarded, but are not handed out."""
        for origin, endpoint in placed:
            state = self._directory.node_state(origin)
            if state in (MemberState.ALIVE, MemberState.SUSPECT):
                yield endpoint


def address_of_reverse(name: str) -> Ip | None:
    """Return the address that a reverse name asks for (RFC 1035 3.5, RFC 3596 2.5), or None."""
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
