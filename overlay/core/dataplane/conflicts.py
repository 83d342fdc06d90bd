"""Conflicts between records: their winners, the same on every node.

No key has two writers, so records never contradict each other; but two nodes on both sides of a
partition may have created the same network name, chosen the same VNI, given two containers one
name, or been told to use one address or MAC. Nothing is merged silently: each conflict is
reported with its winner. Owns: the rules, for planner and report. Does not: know a clock; "first"
is not something that nodes can agree on.
"""

from __future__ import annotations

import enum
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from overlay.core.dataplane.network_drivers import is_encrypted
from overlay.model import (
    Endpoint,
    Ip,
    Mac,
    Network,
    NodeId,
    Vni,
    ip_text,
    mac_for,
    mac_text,
    name_key,
    shares_name,
)

OwnerOf: TypeAlias = Callable[[Vni, Ip], NodeId | None]
"""Returns the owner of an address by the grants; None if unknown."""


class ConflictKind(enum.StrEnum):
    """The kind of a conflict: the property that is claimed twice."""

    NETWORK_NAME = "network name"
    VNI = "VNI"
    NAME = "name"
    IP = "address"
    MAC = "MAC"


class Claim(NamedTuple):
    """An endpoint and its origin."""

    origin: NodeId
    endpoint: Endpoint


class NetworkClaim(NamedTuple):
    """A network and its origin."""

    origin: NodeId
    network: Network


class Conflict(NamedTuple):
    """`subject` (text for people) is claimed by all of `claims`; one wins.

    `vni` is that of the network, or of the winner where networks conflict. Claims are `Claim` for
    NAME, IP and MAC, `NetworkClaim` for the other kinds.
    """

    kind: ConflictKind
    vni: Vni
    subject: str
    winner: Claim | NetworkClaim
    losers: tuple[Claim | NetworkClaim, ...]


# --- one claim against another -----------------------------------------------------------


def better_for_ip(vni: Vni, ip: Ip, one: Claim, other: Claim, owner_of: OwnerOf | None) -> bool:
    """Return whether `one` has the better claim to the address.

    The owner of the address wins, then the lower endpoint id.
    """
    return _ip_rank(vni, ip, one, owner_of) < _ip_rank(vni, ip, other, owner_of)


def better_for_mac(vni: Vni, one: Claim, other: Claim, owner_of: OwnerOf | None) -> bool:
    """Return whether `one` has the better claim to the shared MAC.

    A MAC derived from the claim's address wins over a chosen one, then the rank of its first
    address.
    """
    return _mac_rank(vni, one, owner_of) < _mac_rank(vni, other, owner_of)


def _ip_rank(
    vni: Vni, ip: Ip, claim: Claim, owner_of: OwnerOf | None
) -> tuple[bool, bytes, NodeId]:
    owns = owner_of is not None and owner_of(vni, ip) == claim.origin
    return (not owns, claim.endpoint.endpoint_id, claim.origin)


def _mac_rank(vni: Vni, claim: Claim, owner_of: OwnerOf | None) -> tuple[bool, bool, bytes, NodeId]:
    ips = claim.endpoint.ips
    if not ips:
        return (True, True, claim.endpoint.endpoint_id, claim.origin)
    derived = claim.endpoint.mac == mac_for(vni, ips[0])
    return (not derived, *_ip_rank(vni, ips[0], claim, owner_of))


# --- reports -----------------------------------------------------------------------------


def network_conflicts(claims: Iterable[tuple[NodeId, Network]]) -> list[Conflict]:
    """Return the conflicts between networks, sorted by kind and VNI.

    VNIs first: a network reserves one per subnet, and of two that overlap an encrypted one keeps
    its VNIs, so that no member can make it one in clear; else the one with the lower (creator,
    VNI). The losers do not compete for names, where the lower (creator,
    VNI) wins too.
    """
    ordered = sorted(
        (NetworkClaim(origin, network) for origin, network in claims),
        key=_network_rank,
    )
    kept: list[NetworkClaim] = []
    taken: dict[int, NetworkClaim] = {}
    beaten: dict[NetworkClaim, list[NetworkClaim]] = defaultdict(list)
    for claim in ordered:
        vnis = range(claim.network.vni, claim.network.vni + len(claim.network.subnets))
        holder = next((taken[vni] for vni in vnis if vni in taken), None)
        if holder is None:
            kept.append(claim)
            taken.update(dict.fromkeys(vnis, claim))
        else:
            beaten[holder].append(claim)
    conflicts = [
        Conflict(
            ConflictKind.VNI,
            winner.network.vni,
            str(winner.network.vni),
            winner,
            tuple(losers),
        )
        for winner, losers in beaten.items()
    ]
    by_name: dict[str, list[NetworkClaim]] = defaultdict(list)
    for claim in kept:
        by_name[claim.network.name.lower()].append(claim)
    conflicts += [
        Conflict(
            ConflictKind.NETWORK_NAME,
            group[0].network.vni,
            group[0].network.name,
            group[0],
            tuple(group[1:]),
        )
        for group in by_name.values()
        if len(group) > 1
    ]
    return sorted(conflicts, key=lambda conflict: (conflict.kind, conflict.vni))


def _network_rank(claim: NetworkClaim) -> tuple[bool, NodeId, Vni]:
    return (not is_encrypted(claim.network), claim.origin, claim.network.vni)


def usable_networks(claims: Iterable[tuple[NodeId, Network]]) -> list[Network]:
    """Return the networks without a VNI conflict, by VNI, for planning."""
    given = list(claims)
    beaten = {
        (loser.origin, loser.network.vni)
        for conflict in network_conflicts(given)
        if conflict.kind is ConflictKind.VNI
        for loser in conflict.losers
        if isinstance(loser, NetworkClaim)
    }
    usable = [network for origin, network in given if (origin, network.vni) not in beaten]
    return sorted(usable, key=lambda network: network.vni)


class ContestedKeys:
    """The names, MACs and addresses that several endpoints of a network claim; usually none.

    Makes `endpoint_conflicts` cheap where there are very many endpoints: it needs only those that
    claim one of these. What is reserved counts as claimed.
    """

    def __init__(self, reserved: Iterable[bytes] = ()) -> None:
        self._claimed: set[str | bytes] = set(reserved)  # names are text, MACs have 6 bytes
        self._contested: set[str | bytes] = set()

    def add(self, endpoints: Sequence[Endpoint]) -> None:
        """Add endpoints, each once."""
        names = [name_key(each.name) for each in endpoints]
        macs = [each.mac for each in endpoints]
        ips = [ip for each in endpoints for ip in each.ips]
        kinds: tuple[Sequence[str | bytes], ...] = (names, macs, ips)
        for values in kinds:
            found = set(values)
            if len(found) < len(values):
                self._contested.update(key for key, count in Counter(values).items() if count > 1)
            self._contested |= self._claimed & found
            self._claimed |= found

    def __bool__(self) -> bool:
        return bool(self._contested)

    def are_claimed_by(self, endpoint: Endpoint) -> bool:
        """Return whether an endpoint claims any of them."""
        keys = (endpoint.name.lower(), endpoint.mac, *endpoint.ips)
        return not self._contested.isdisjoint(keys)


def endpoint_conflicts(claims: Iterable[Claim], owner_of: OwnerOf | None = None) -> list[Conflict]:
    """Return the conflicts between endpoints of a network, by VNI and kind.

    An endpoint may lose its address and keep its name: each conflict is independent.
    """
    names: dict[tuple[Vni, str], list[Claim]] = defaultdict(list)
    ips: dict[tuple[Vni, Ip], list[Claim]] = defaultdict(list)
    macs: dict[tuple[Vni, Mac], list[Claim]] = defaultdict(list)
    for claim in claims:
        endpoint = claim.endpoint
        names[endpoint.vni, endpoint.name.lower()].append(claim)
        macs[endpoint.vni, endpoint.mac].append(claim)
        for ip in endpoint.ips:
            ips[endpoint.vni, ip].append(claim)
    conflicts = []
    for (vni, name), group in names.items():
        if len(group) > 1 and not all(shares_name(claim.endpoint) for claim in group):
            group.sort(key=lambda claim: (claim.endpoint.endpoint_id, claim.origin))
            conflicts.append(_conflict(ConflictKind.NAME, vni, name, group))
    for (vni, ip), group in ips.items():
        if len(group) > 1:
            ranks = [(_ip_rank(vni, ip, claim, owner_of), claim) for claim in group]
            ranks.sort(key=lambda pair: pair[0])
            ordered = [claim for _, claim in ranks]
            conflicts.append(_conflict(ConflictKind.IP, vni, ip_text(ip), ordered))
    for (vni, mac), group in macs.items():
        if len(group) > 1:
            mac_ranks = [(_mac_rank(vni, claim, owner_of), claim) for claim in group]
            mac_ranks.sort(key=lambda pair: pair[0])
            ordered = [claim for _, claim in mac_ranks]
            conflicts.append(_conflict(ConflictKind.MAC, vni, mac_text(mac), ordered))
    return sorted(conflicts, key=lambda conflict: (conflict.vni, conflict.kind, conflict.subject))


def _conflict(kind: ConflictKind, vni: Vni, subject: str, ordered: list[Claim]) -> Conflict:
    return Conflict(kind, vni, subject, ordered[0], tuple(ordered[1:]))
