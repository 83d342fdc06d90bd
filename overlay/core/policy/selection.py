"""Which policies select an address, as a source and as a destination.

Of an address of the network whose endpoint this host does not know, everything may be true: each
deny of endpoints is about it, and no allow. So are broadcasts and multicasts, which reach all
endpoints, and link-local addresses that belong to none.

Owns: peers by what they select, and what selects ranges of addresses. Does not: know which
addresses endpoints have (`population`), or what a class means for a connection.
"""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Container, Sequence
from typing import Final, NamedTuple, TypeAlias, TypeVar

from overlay import limits
from overlay.core.policy.policy import Peer, PeerKind, Policy
from overlay.model import Endpoint, Ip, Network, Subnet, is_host

Selection: TypeAlias = int
"""The policies that select an address: bits of those that do as a source, in order of precedence,
above them of those that do as a destination, then one for gateways and one for resolvers."""
SelectionNames: TypeAlias = frozenset[str]
"""A selection without the places of its policies."""
Key = TypeVar("Key")

# On the segment, and no endpoint's own: RFC 5771, RFC 919, RFC 4291.
_GROUPS: Final = ("224.0.0.0/4", "255.255.255.255/32", "ff00::/8")
_LINK_LOCAL: Final = "fe80::/10"


class Range(NamedTuple):
    """A range of addresses; `prefix` are the leading bits that they share."""

    size: int  # of an address in bytes
    length: int
    prefix: int

    @property
    def base(self) -> Ip:
        """The first address."""
        return Ip((self.prefix << 8 * self.size - self.length).to_bytes(self.size, "big"))


def range_of(ip: Ip, length: int) -> Range:
    """Return the range of this length around an address."""
    return Range(len(ip), length, int.from_bytes(ip, "big") >> 8 * len(ip) - length)


class PeerIndex:
    """The peers of all policies of a network, by what they select."""

    def __init__(self, policies: Sequence[Policy]) -> None:
        """Take the policies in order of precedence."""
        self._count = len(policies)
        self.gateway: Selection = 1 << 2 * self._count
        self.resolver: Selection = self.gateway << 1
        self.everything: Selection = 0
        self.hosts: Selection = 0
        self.world: Selection = 0
        self.doubted: Selection = 0
        """The selection of an endpoint that is not known."""
        self.networks: dict[str, Selection] = {}
        self.ranges: dict[Range, Selection] = {}
        self._deny: Selection = 0
        self._labels: dict[tuple[str, str | None], Selection] = {}
        self._names: dict[str, Selection] = {}
        self._bits: dict[str, Selection] = {"gateway": self.gateway, "resolver": self.resolver}
        self._names_of: dict[Selection, SelectionNames] = {}
        for number, policy in enumerate(policies):
            name = policy.name.lower()
            self._bits[f"from {name}"] = 1 << number
            self._bits[f"to {name}"] = 1 << self._count + number
            for peers, side in ((policy.sources, "from"), (policy.destinations, "to")):
                bit = self._bits[f"{side} {name}"]
                if policy.action == "deny":
                    self._deny |= bit
                if not peers:
                    self.everything |= bit
                for peer in peers:
                    self._add(peer, bit)

    def _add(self, peer: Peer, bit: Selection) -> None:
        match peer.kind:
            case PeerKind.LABEL:
                _join(self._labels, (peer.key, peer.value), bit)
            case PeerKind.NAME:
                _join(self._names, peer.key.lower(), bit)
            case PeerKind.HOST:
                self.hosts |= bit
            case PeerKind.WORLD:
                self.world |= bit
            case PeerKind.NETWORK:
                _join(self.networks, peer.key.lower(), bit)
            case PeerKind.CIDR if peer.cidr is not None:
                base = Ip(peer.cidr.network_address.packed)
                _join(self.ranges, range_of(base, peer.cidr.prefixlen), bit)
        if peer.kind in (PeerKind.LABEL, PeerKind.NAME, PeerKind.HOST):
            self.doubted |= bit & self._deny

    def of_endpoint(self, endpoint: Endpoint) -> Selection:
        """Return what selects an endpoint, whatever its address."""
        found = self._names.get(endpoint.name.lower(), 0)
        for key, value in endpoint.labels:
            found |= self._labels.get((key, value), 0) | self._labels.get((key, None), 0)
        return found | self.hosts if is_host(endpoint) else found

    def strictest(self, one: Selection, other: Selection) -> Selection:
        """Return the denies of either, and the allows of both."""
        return (one | other) & self._deny | one & other

    def matching(self, source: Selection, destination: Selection) -> Selection:
        """Return the policies about connections from one to the other, by precedence."""
        return source & destination >> self._count & (1 << self._count) - 1

    def names_of(self, selection: Selection) -> SelectionNames:
        """Return a selection's names."""
        found = self._names_of.get(selection)
        if found is None:
            found = frozenset(name for name, bit in self._bits.items() if selection & bit)
            self._names_of[selection] = found
        return found


class RangeTable:
    """The selections of address ranges; that of the longest prefix counts."""

    def __init__(
        self,
        index: PeerIndex,
        network: Network,
        networks: Sequence[tuple[str, tuple[Subnet, ...]]],
    ) -> None:
        """Take the names and subnets of all networks, if any policy asks for them."""
        self.has_ipv6 = any(len(subnet.base) == 16 for subnet in network.subnets)
        self._selections: dict[Range, Selection] = {}  # of an address that is no endpoint's
        self._doubted: dict[Range, Selection] = {}  # of one of which nothing is known
        self._places: dict[Ip, Range] = {}  # of addresses that were looked up
        self._own: set[Range] = set()  # on the network itself
        self._lengths: dict[int, list[int]] = {4: [], 16: []}  # longest first
        segment = {_of_subnet(subnet) for subnet in network.subnets}
        segment.update(_parsed(text) for text in (*_GROUPS, _LINK_LOCAL))
        inside: dict[Range, set[str]] = {each: {network.name.lower()} for each in segment}
        for name, subnets in networks:
            for subnet in subnets:
                inside.setdefault(_of_subnet(subnet), set()).add(name.lower())
        inherited: dict[Range, tuple[Selection, frozenset[str]]] = {}
        everything = {Range(4, 0, 0), Range(16, 0, 0), *inside, *index.ranges}
        for each in sorted(everything, key=lambda found: found.length):
            parent = self.parent(each)
            by_range, within = inherited.get(parent, (0, frozenset()))
            by_range |= index.ranges.get(each, 0)
            within |= inside.get(each, set())
            inherited[each] = by_range, within
            if each in segment or parent in self._own:
                self._own.add(each)
            found = index.everything | by_range | (0 if within else index.world)
            for name in within:
                found |= index.networks.get(name, 0)
            self._selections[each] = found
            more = index.doubted if each in self._own else 0
            self._doubted[each] = found | more
            if each.length not in self._lengths[each.size]:
                self._lengths[each.size].insert(0, each.length)

    def parent(self, found: Range) -> Range:
        """Return the smallest known range around a range; the range itself if there is none."""
        for length in self._lengths[found.size]:
            if length < found.length:
                around = Range(found.size, length, found.prefix >> found.length - length)
                if around in self._selections:
                    return around
        return found

    def classes(self) -> dict[tuple[Ip, int], Selection]:
        """Return what selects unknown addresses, by ranges that differ from the one around."""
        found = {}
        for each, selection in self._doubted.items():
            parent = self.parent(each)
            if parent is each or self._doubted[parent] != selection:
                found[each.base, each.length] = selection
        return found

    def selection_at(self, ip: Ip) -> Selection:
        """Return the selection of an address that is known to belong to no endpoint."""
        return self._selections[self._around(ip)]

    def doubted_at(self, ip: Ip) -> Selection:
        """Return what selects the unknown addresses around an address."""
        return self._doubted[self._around(ip)]

    def is_own(self, ip: Ip) -> bool:
        """Return whether an address is on the network itself."""
        return self._around(ip) in self._own

    def _around(self, ip: Ip) -> Range:
        """Return the smallest known range that an address is in."""
        found = self._places.get(ip)
        if found is None:
            if len(self._places) >= limits.POLICY_RANGES_MAX:
                self._places.clear()
            found = self._places[ip] = self._find(ip)
        return found

    def _find(self, ip: Ip) -> Range:
        number, bits = int.from_bytes(ip, "big"), 8 * len(ip)
        for length in self._lengths[len(ip)]:
            found = Range(len(ip), length, number >> bits - length)
            if found in self._selections:
                return found
        raise AssertionError("the range of all addresses is known")


def number_for(text: str, first: int, end: int, taken: Container[int]) -> int:
    """Return a free number from `first` up to, but without, `end`: for one text the same one."""
    digest = hashlib.blake2s(text.encode(), digest_size=8).digest()
    size = end - first
    number = int.from_bytes(digest, "big") % size
    while first + number in taken:
        number = (number + 1) % size
    return first + number


def _join(table: dict[Key, Selection], key: Key, bit: Selection) -> None:
    table[key] = table.get(key, 0) | bit


def _of_subnet(subnet: Subnet) -> Range:
    return range_of(subnet.base, subnet.prefix_length)


def _parsed(text: str) -> Range:
    found = ipaddress.ip_network(text)
    return range_of(Ip(found.network_address.packed), found.prefixlen)
