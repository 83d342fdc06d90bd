"""The addresses of a network that something is known about, and which policies select them.

Owns: whose an address is, where several endpoints claim it, and which are this host's.
Does not: know what selects a range of addresses (`selection`).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from overlay.core.dataplane.port_security import allowed_addresses
from overlay.core.policy.selection import PeerIndex, RangeTable, Selection
from overlay.model import (
    Endpoint,
    Ip,
    Network,
    Subnet,
    has_port_security_off,
    is_host,
    link_local_ip,
)


@dataclass(frozen=True, slots=True)
class Population:
    """Everything that has an address, as far as the policies of one network are concerned."""

    network: Network
    locals: tuple[Endpoint, ...] = ()
    remotes: tuple[Endpoint, ...] = ()
    outside: tuple[Ip, ...] = ()  # on the segment, but no endpoint's
    networks: tuple[tuple[str, tuple[Subnet, ...]], ...] = ()  # all of the cluster, by name
    resolvers: tuple[Ip, ...] = ()  # elsewhere, that containers of this host were given

    @property
    def has_router(self) -> bool:
        """Whether a container here may send for others, so that no side need be of this host."""
        return any(
            not is_host(each) and has_port_security_off(self.network, each) for each in self.locals
        )


class _Claim(NamedTuple):
    """An address that an endpoint has or may use, and what selects it as that endpoint's."""

    ip: Ip
    selection: Selection


class _Claims(NamedTuple):
    endpoint: Endpoint
    own: tuple[_Claim, ...]
    allowed: tuple[_Claim, ...]


class AddressBook:
    """The selection of each known address; an endpoint that is the same as before costs little."""

    def __init__(self, index: PeerIndex, table: RangeTable) -> None:
        self._index = index
        self._table = table
        self._claims: dict[int, _Claims] = {}  # by the identity of the endpoint in it

    def read(self, population: Population) -> tuple[dict[Ip, Selection], set[Selection]]:
        """Return what selects each known address, and which of these selections are here.

        An address that an endpoint may use beside its own is that endpoint's, unless another has
        it as its own. Where several claim one address, each deny of any of them counts, and no
        allow that is not of all.
        """
        here = [self._of(each) for each in population.locals]
        everyone = [*here, *(self._of(each) for each in population.remotes)]
        self._claims = {id(each.endpoint): each for each in everyone}
        strictest = self._index.strictest
        found: dict[Ip, Selection] = {}
        for each in everyone:
            for ip, selection in each.own:
                former = found.setdefault(ip, selection)
                if former != selection:
                    found[ip] = strictest(former, selection)
        own = frozenset(found) if any(each.allowed for each in everyone) else frozenset()
        for each in everyone:
            for ip, selection in each.allowed:
                if ip not in own:
                    former = found.setdefault(ip, selection)
                    found[ip] = strictest(former, selection)
        self._add_others(population, found)
        local = {ip for each in here for claims in (each.own, each.allowed) for ip, _ in claims}
        local.difference_update(subnet.gateway for subnet in population.network.subnets)
        return found, {found[ip] for ip in local}

    def _add_others(self, population: Population, found: dict[Ip, Selection]) -> None:
        table, subnets = self._table, population.network.subnets
        auxiliary = (ip for subnet in subnets for _, ip in subnet.auxiliary)
        for ip in (*population.outside, *auxiliary):
            found.setdefault(ip, table.selection_at(ip))
        for ip in population.resolvers:
            found[ip] = found.get(ip, table.selection_at(ip)) | self._index.resolver
        for subnet in subnets:
            found[subnet.gateway] = self.at_gateway(subnet)

    def at_gateway(self, subnet: Subnet) -> Selection:
        """Return what selects a subnet's gateway."""
        at = self._table.selection_at(subnet.gateway)
        return at | self._index.hosts | self._index.gateway

    def _of(self, endpoint: Endpoint) -> _Claims:
        known = self._claims.get(id(endpoint))
        if known is not None and known.endpoint is endpoint:
            return known
        chosen = self._index.of_endpoint(endpoint)
        own = tuple(_Claim(ip, chosen | at) for ip, at in self._own(endpoint))
        allowed = tuple(
            _Claim(ip, chosen | self._table.selection_at(ip)) for ip in allowed_addresses(endpoint)
        )
        return _Claims(endpoint, own, allowed)

    def _own(self, endpoint: Endpoint) -> Iterator[tuple[Ip, Selection]]:
        """Yield an endpoint's own addresses, and what selects the ranges that they are in.

        Its link-local address is as much its own, and is where the others are.
        """
        first = None
        for ip in endpoint.ips:
            if self._table.is_own(ip):
                found = self._table.selection_at(ip)
                first = found if first is None else first
                yield ip, found
        if first is not None and self._table.has_ipv6:
            yield link_local_ip(endpoint.mac), first
