"""The rules for a valid router, in itself and beside those that exist.

Owns: the rules, and the errors about them. Does not: write records.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Final

from overlay import limits
from overlay.agent.declared.named_objects import NamedKind
from overlay.agent.records.directory import Directory
from overlay.core.dataplane.network_drivers import driver_of, has_tunnel
from overlay.core.declared.kinds import ROUTER_KIND
from overlay.core.router.router import Router
from overlay.core.router.routing import encrypted_beside_clear, overlap, share_family
from overlay.errors import ConflictError, UsageError
from overlay.model import Network, Vni

ROUTERS: Final = NamedKind(ROUTER_KIND, "router", "routers", "Use fewer or shorter labels")


def networks_of(directory: Directory, names: Iterable[str]) -> list[Network]:
    """Return networks by name, each once and by VNI; raises NotFoundError."""
    found = {network.vni: network for network in map(directory.network, names)}
    return [found[vni] for vni in sorted(found)]


def require_valid(name: str, networks: Sequence[Network], *, allow_clear: bool) -> None:
    """Raise OverlayError for networks that a router cannot connect."""
    require_count(name, len(networks))
    for network in networks:
        if not has_tunnel(network):
            raise ConflictError(
                f"router {name} cannot connect network {network.name}",
                why=f"it uses driver {driver_of(network)}; routers connect overlay networks, which "
                "every host can be on",
                hint="Leave it out, or create an overlay network in its place",
            )
    for one, other in combinations(networks, 2):
        _require_compatible(name, one, other)
    mixed = None if allow_clear else encrypted_beside_clear(networks)
    if mixed is not None:
        encrypted, clear = mixed
        raise ConflictError(
            f"router {name} would send packets of network {encrypted.name} in clear",
            why=f"network {encrypted.name} is encrypted and {clear.name} is not: what is routed to "
            f"{clear.name} crosses hosts as its packets do",
            hint=f"Encrypt it: overlayd encryption on {clear.name}; or allow it with --allow-clear",
            field="allow_clear",
        )


def require_count(name: str, count: int) -> None:
    """Raise UsageError for too few or too many networks."""
    if count < 2:
        raise UsageError(
            f"router {name} needs at least two networks",
            why=f"it would have {count}",
            hint=f"Such as: overlayd router create {name} --network blue --network red",
            field="networks",
        )
    if count > limits.ROUTER_NETWORKS_MAX:
        raise UsageError(
            f"router {name} would have {count} networks; {limits.ROUTER_NETWORKS_MAX} is the limit",
            hint="Use several routers",
            field="networks",
        )


def require_room(name: str, networks: Iterable[Network], routers: Sequence[Router]) -> None:
    """Raise ConflictError for a network that has as many other routers as count."""
    for network in networks:
        others = [each for each in routers if network.vni in each.vnis and each.name != name]
        if len(others) >= limits.ROUTERS_PER_NETWORK_MAX:
            raise ConflictError(
                f"network {network.name} is on {len(others)} routers: the limit",
                hint=f"Give one of them the networks of {name}, such as: overlayd router set "
                f"{others[0].name} --add NETWORK",
            )


def require_disjoint(directory: Directory, network: Network, others: Iterable[Vni]) -> None:
    """Raise ConflictError if a network overlaps with one that another router leads to."""
    for vni in others:
        other = directory.network_by_vni(vni)
        for reached in () if other is None else directory.routed_with(other):
            pair = None if reached.vni == network.vni else overlap(reached, network)
            if pair is not None and other is not None:
                raise ConflictError(
                    f"network {network.name} overlaps with network {reached.name}",
                    why=f"{pair[1]} and {pair[0]} overlap, and network {other.name} would be "
                    "routed to both",
                    hint=f"See: overlayd network inspect {other.name}",
                )


def require_same(existing: Router, wanted: Router) -> None:
    """Raise ConflictError if a router of the name exists and is another one."""
    compared = (
        ("networks", existing.vnis != wanted.vnis),
        ("allow_clear", existing.allow_clear != wanted.allow_clear),
        ("labels", existing.labels != wanted.labels),
    )
    ROUTERS.require_same(existing.name, compared)


def _require_compatible(name: str, one: Network, other: Network) -> None:
    pair = overlap(one, other)
    if pair is not None:
        raise ConflictError(
            f"router {name} cannot connect networks {one.name} and {other.name}",
            why=f"their subnets {pair[0]} and {pair[1]} overlap, so an address could be in both",
            hint="Create one of them again with another range: overlayd network create NAME "
            "--subnet RANGE",
            field="networks",
        )
    if not share_family(one, other):
        raise ConflictError(
            f"router {name} cannot connect networks {one.name} and {other.name}",
            why="one has IPv4 subnets alone, and the other IPv6 subnets alone",
            hint="Create one of them again with subnets of both",
            field="networks",
        )
