"""Which networks routers connect, by the records.

Records of members that were cut off may contradict each other. So what cannot work has no effect,
on all hosts alike: a network that has no tunnel, or whose subnets overlap with those of a network
of a lower VNI on the same router; and an encrypted network beside one in clear, unless the router
allows that.

Owns: these rules. Does not: read records, or know what a host has in its kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from overlay.core.dataplane.network_drivers import has_tunnel, is_encrypted
from overlay.core.router.router import Router
from overlay.model import Network, Subnet, Vni


def members(router: Router, networks: Mapping[Vni, Network]) -> list[Network]:
    """Return the networks that a router connects, by VNI."""
    found: list[Network] = []
    for vni in sorted(router.vnis):
        network = networks.get(vni)
        if network is None or not has_tunnel(network):
            continue
        if not any(overlap(network, other) for other in found):
            found.append(network)
    return found


def routed_with(
    routers: Iterable[Router], networks: Mapping[Vni, Network], vni: Vni
) -> list[Network]:
    """Return the networks that containers of a network reach through routers, by VNI."""
    own = networks.get(vni)
    if own is None:
        return []
    found: dict[Vni, Network] = {}
    for router in routers:
        if vni not in router.vnis:
            continue
        connected = members(router, networks)
        if own in connected:
            found |= {each.vni: each for each in connected if _may_meet(router, own, each)}
    found.pop(vni, None)
    return _disjoint(own, found)


def overlap(one: Network, other: Network) -> tuple[Subnet, Subnet] | None:
    """Return the first two subnets of two networks that overlap; None if none do."""
    for subnet in one.subnets:
        for taken in other.subnets:
            is_same_family = len(subnet.base) == len(taken.base)
            if is_same_family and subnet.network.overlaps(taken.network):
                return subnet, taken
    return None


def encrypted_beside_clear(networks: Iterable[Network]) -> tuple[Network, Network] | None:
    """Return the first encrypted network and the first one in clear; None if all are alike."""
    known = list(networks)
    encrypted = next((each for each in known if is_encrypted(each)), None)
    clear = next((each for each in known if not is_encrypted(each)), None)
    return None if encrypted is None or clear is None else (encrypted, clear)


def share_family(one: Network, other: Network) -> bool:
    """Return whether two networks have subnets of one address family."""
    return not _families(one).isdisjoint(_families(other))


def routed_subnets(network: Network, other: Network) -> Iterator[Subnet]:
    """Yield the subnets of another network that containers of a network can have packets for."""
    families = _families(network)
    return (subnet for subnet in other.subnets if len(subnet.base) in families)


def _families(network: Network) -> frozenset[int]:
    return frozenset(len(subnet.base) for subnet in network.subnets)


def _may_meet(router: Router, own: Network, other: Network) -> bool:
    return router.allow_clear or is_encrypted(own) == is_encrypted(other)


def _disjoint(own: Network, found: Mapping[Vni, Network]) -> list[Network]:
    """Return networks without those that overlap with one before: two routers may have both."""
    kept = [own]
    for vni in sorted(found):
        if not any(overlap(found[vni], other) for other in kept):
            kept.append(found[vni])
    return kept[1:]
