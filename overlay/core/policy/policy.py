"""A policy: which new connections of one network it allows or denies.

Owns: these values, their text form, and the order of policies. Does not: decide (`decision`).
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import Enum
from ipaddress import IPv4Network, IPv6Network
from typing import Final, Literal, TypeAlias

from overlay.model import Vni

"""The kind of declared object (`core.declared`) that policies are."""
POLICY_SOFTWARE: Final = (0, 3, 0)
"""The first version that enforces policies; older agents ignore them without a word."""
PORT_MAX: Final = 0xFFFF

IpNetwork: TypeAlias = IPv4Network | IPv6Network
PolicyAction: TypeAlias = Literal["allow", "deny"]
PolicyProtocol: TypeAlias = Literal["tcp", "udp", "icmp"]
PROTOCOL_NUMBERS: Final[dict[PolicyProtocol, tuple[int, ...]]] = {
    "tcp": (6,),
    "udp": (17,),
    "icmp": (1, 58),  # that of IPv4, and that of IPv6
}
"""The numbers of IANA's registry that a protocol's name means."""


class PeerKind(Enum):
    """The property by which a peer selects addresses; the value begins its text."""

    LABEL = "label="  # endpoints of the policy's network with a label
    NAME = "name="  # the endpoints of the policy's network with a name
    HOST = "host"  # the hosts' own addresses on the network, and its gateways
    WORLD = "world"  # addresses in no subnet of any network of the cluster
    CIDR = "cidr:"  # a range of addresses
    NETWORK = "network:"  # the addresses of a network's subnets


@dataclass(frozen=True, slots=True)
class Peer:
    """One way to select an end of connections."""

    kind: PeerKind
    key: str = ""  # of the label; or the name of the endpoint or network
    value: str | None = None  # of the label; None: any value
    cidr: IpNetwork | None = None

    def __str__(self) -> str:
        """Return the peer as it is typed, such as `label=app=web` or `cidr:10.0.0.0/8`."""
        if self.kind is PeerKind.CIDR:
            return f"{self.kind.value}{self.cidr}"
        value = "" if self.value is None else f"={self.value}"
        return f"{self.kind.value}{self.key}{value}"


@dataclass(frozen=True, slots=True)
class PortRange:
    """Destination ports of a protocol, or a protocol without ports."""

    protocol: PolicyProtocol
    first: int = 0
    last: int = PORT_MAX

    def __str__(self) -> str:
        """Return the range as it is typed: `5432/tcp`, `8000-8100/udp`, `tcp`, `icmp`."""
        if (self.first, self.last) == (0, PORT_MAX):
            return self.protocol
        ports = str(self.first) if self.first == self.last else f"{self.first}-{self.last}"
        return f"{ports}/{self.protocol}"

    def covers(self, protocol: int, port: int) -> bool:
        """Return whether a protocol's number and a destination port are in the range."""
        if protocol not in PROTOCOL_NUMBERS[self.protocol]:
            return False
        return self.protocol == "icmp" or self.first <= port <= self.last


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy of the cluster, as its record in force has it.

    It is about new connections from any of its sources to any of its destinations, on any of its
    ports; without sources, destinations or ports, all of these.
    """

    name: str
    vni: Vni
    action: PolicyAction
    sources: tuple[Peer, ...] = ()
    destinations: tuple[Peer, ...] = ()
    ports: tuple[PortRange, ...] = ()
    log: bool = False
    labels: tuple[tuple[str, str], ...] = ()

    @property
    def precedence(self) -> tuple[bool, str]:
        """Return the place of the policy: the first one that matches a connection decides."""
        return self.action != "deny", self.name.lower()


def parse_peer(text: str) -> Peer:
    """Return the peer of a text; raises ValueError. The names in it are not checked."""
    if text in (PeerKind.HOST.value, PeerKind.WORLD.value):
        return Peer(PeerKind(text))
    for kind in (PeerKind.LABEL, PeerKind.NAME, PeerKind.CIDR, PeerKind.NETWORK):
        rest = text.removeprefix(kind.value)
        if rest == text or not rest:
            continue
        if kind is PeerKind.CIDR:
            return Peer(kind, cidr=ipaddress.ip_network(rest))
        if kind is PeerKind.LABEL:
            key, equals, value = rest.partition("=")
            if not key:
                break
            return Peer(kind, key, value if equals else None)
        return Peer(kind, rest)
    raise ValueError(f"{text!r} is not a peer")


def parse_port_range(text: str) -> PortRange:
    """Return the ports of a text, such as `80/tcp`, `80-90/udp` or `icmp`; raises ValueError."""
    numbers, slash, protocol = text.rpartition("/")
    match protocol.lower():
        case "tcp" | "udp" | "icmp" as known:
            pass
        case _:
            raise ValueError(f"{text!r} is not a port")
    if not slash:
        return PortRange(known)
    first, _, last = numbers.partition("-")
    found = PortRange(known, _port(first), _port(last or first))
    if known == "icmp" or found.last < found.first:
        raise ValueError(f"{text!r} is not a port")
    return found


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 1 <= int(text[:6]) <= PORT_MAX):
        raise ValueError(f"{text!r} is not a port")
    return int(text)
