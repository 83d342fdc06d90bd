"""Decide whether a new connection is allowed: the reference that what is programmed must equal.

A deny that matches wins over every allow, and an allow over the network's default. What a network
cannot work without is allowed before any policy: name resolution and DHCP at its gateway, name
resolution at the resolvers that containers were given, and neighbor discovery, which is below this
module's protocols.

Owns: these rules. Does not: know endpoints by their records, or established connections, whose
packets pass in both directions.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from overlay.core.policy.policy import Peer, PeerKind, Policy
from overlay.model import Ip

TCP, UDP = 6, 17
GATEWAY_SERVICES: Final = frozenset({(TCP, 53), (UDP, 53), (UDP, 67), (UDP, 547)})
"""Protocols and ports of a gateway that are always allowed: DNS, DHCP and DHCPv6."""
RESOLVER_SERVICES: Final = frozenset({(TCP, 53), (UDP, 53)})
"""Those of a resolver that containers were given: the network's DNS server answers in its place."""


@dataclass(frozen=True, slots=True)
class Party:
    """One end of a connection: an address, and what the cluster knows of it.

    `name` and `labels` are those of the endpoint of the policies' network with that address, as
    long as there is one. `networks`: the names of all networks with a subnet that contains it.
    """

    ip: Ip
    name: str = ""
    labels: tuple[tuple[str, str], ...] = ()
    is_host: bool = False  # a host's own address on the network, or a gateway
    is_gateway: bool = False
    networks: frozenset[str] = frozenset()
    is_resolver: bool = False  # one that containers of this host were given

    @property
    def services(self) -> frozenset[tuple[int, int]]:
        """The protocols and ports that are always allowed there."""
        if self.is_gateway:
            return GATEWAY_SERVICES
        return RESOLVER_SERVICES if self.is_resolver else frozenset()


class Basis(Enum):
    """The kind of rule that decided."""

    POLICY = "policy"
    DEFAULT = "default"
    ALWAYS = "always"  # what a network cannot work without


class Decision(NamedTuple):
    """Whether a new connection is allowed, and what decided it."""

    allowed: bool
    basis: Basis
    policy: str = ""


def decide(
    policies: Iterable[Policy],
    source: Party,
    destination: Party,
    protocol: int,
    port: int,
    *,
    default_deny: bool,
) -> Decision:
    """Return the decision about a new connection on the network of the policies."""
    if (protocol, port) in destination.services:
        return Decision(True, Basis.ALWAYS)
    for policy in sorted(policies, key=lambda each: each.precedence):
        if matches(policy, source, destination, protocol, port):
            return Decision(policy.action == "allow", Basis.POLICY, policy.name)
    return Decision(not default_deny, Basis.DEFAULT)


def matches(policy: Policy, source: Party, destination: Party, protocol: int, port: int) -> bool:
    """Return whether a policy is about a new connection."""
    return (
        selects(policy.sources, source)
        and selects(policy.destinations, destination)
        and (not policy.ports or any(each.covers(protocol, port) for each in policy.ports))
    )


def selects(peers: Iterable[Peer], party: Party) -> bool:
    """Return whether any of some peers selects an end; without peers, every end is selected."""
    chosen = tuple(peers)
    return not chosen or any(_selects(peer, party) for peer in chosen)


def _selects(peer: Peer, party: Party) -> bool:
    match peer.kind:
        case PeerKind.LABEL:
            return any(
                key == peer.key and peer.value in (None, value) for key, value in party.labels
            )
        case PeerKind.NAME:
            return bool(party.name) and party.name.lower() == peer.key.lower()
        case PeerKind.HOST:
            return party.is_host
        case PeerKind.WORLD:
            return not party.networks
        case PeerKind.NETWORK:
            return peer.key.lower() in {name.lower() for name in party.networks}
        case PeerKind.CIDR:
            return peer.cidr is not None and in_range(party.ip, peer)


def in_range(ip: Ip, peer: Peer) -> bool:
    """Return whether an address is in the range of a peer."""
    assert peer.cidr is not None, "a peer that is a range"
    base = peer.cidr.network_address.packed
    shift = 8 * len(base) - peer.cidr.prefixlen
    same = int.from_bytes(ip, "big") >> shift == int.from_bytes(base, "big") >> shift
    return len(ip) == len(base) and same
