"""The verbs on networks: create, remove, and the choice of subnets and VNIs.

Owns: what a sound network definition is. Must not know: containers, sandboxes, the API.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from overlay import limits
from overlay.agent.gossip.service import Member
from overlay.agent.networks.subnets import Range, SubnetWish, matches, parse_range, subnet_of
from overlay.agent.records.directory import Directory
from overlay.core.dataplane import network_drivers
from overlay.core.protocol.records import CLUSTER_SCOPE, Participation, Removed, key_of
from overlay.errors import ConflictError, UsageError
from overlay.model import RESERVED_NETWORK_NAMES, Network, NodeId, Subnet, Vni

# Tried in this order where no subnet is asked for: less used than 10.0.0.0/16 and friends.
_DEFAULT_POOL = ipaddress.ip_network("10.32.0.0/11")
_DEFAULT_PREFIX = 16
_INTERFACE = re.compile(r"[^\s/:]*")


@dataclass(frozen=True, slots=True)
class Wish:
    """A network as asked for."""

    name: str
    subnets: Sequence[SubnetWish]
    vni: int | None = None
    internal: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    force: bool = False
    isolate_subnets: bool = False
    driver: str = network_drivers.OVERLAY
    parent: str = ""


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the host knows that a new network must not collide with."""

    overlapping_route: Callable[[Range], str | None]  # text of the route, or None
    vnis_in_use: frozenset[int]  # VXLAN devices of others on our UDP port


def create(member: Member, directory: Directory, wish: Wish, around: Surroundings) -> Network:
    """Define a network and return it; the same definition again returns the existing one."""
    if wish.name in RESERVED_NETWORK_NAMES:
        raise UsageError(
            f"a network can't be named {wish.name!r}",
            why=f"'container add --network {wish.name}' means something else",
            hint="Choose another name",
            field="name",
        )
    require_sound(wish)
    existing = next((n for n in directory.networks() if n.name == wish.name), None)
    if existing is not None:
        _require_same(existing, wish)
        return existing
    if len(directory.networks()) >= limits.NETWORK_COUNT_MAX:
        raise ConflictError(f"there are {limits.NETWORK_COUNT_MAX} networks already: the limit")
    subnets = _subnets(directory, wish, around)
    network = Network(
        vni=_vni(directory, wish, around, len(subnets), directory.removers(member.node_id)),
        name=wish.name,
        subnets=subnets,
        creator=member.node_id,
        internal=wish.internal,
        labels=_labels(wish),
        isolate_subnets=wish.isolate_subnets,
    )
    part = Participation(vni=network.vni, forwards=False)
    member.publish(member.commit(CLUSTER_SCOPE, [network, part]))
    return network


def remove(member: Member, directory: Directory, name: str) -> Network:
    """End a network everywhere; raises ConflictError while endpoints are on it, or may be."""
    network = directory.network(name)
    unseen = directory.unseen(network.vni)
    if unseen:
        raise ConflictError(
            f"network {name} may be in use",
            why=f"what is attached to it on {unseen[0]} is not known here yet",
            hint=f"Try again in a moment, or on {unseen[0]}: overlayd network rm {name}",
        )
    placed = list(directory.endpoints(network.vni))
    if placed:
        shown = ", ".join(
            f"{item.endpoint.name} on {directory.node_name(item.origin)}" for item in placed[:5]
        )
        more = f" and {len(placed) - 5} more" if len(placed) > 5 else ""
        raise ConflictError(
            f"network {name} is in use",
            why=f"attached: {shown}{more}",
            hint="Detach them first: overlayd detach TARGET --network " + name,
        )
    if network.creator == member.node_id:
        segments = member.commit(CLUSTER_SCOPE, deletes=own_keys(network))
    else:
        segments = member.commit(CLUSTER_SCOPE, [Removed(network.vni, network.creator)])
    member.publish(segments)
    return network


def own_keys(network: Network) -> list[tuple[str, bytes]]:
    """Return the keys of what a network's creator wrote for it."""
    return [key_of(network), key_of(Participation(network.vni, forwards=False))]


def require_sound(wish: Wish) -> None:
    """Raise UsageError where what is asked for does not go with the kind of network."""
    if wish.driver not in network_drivers.DRIVERS:
        raise UsageError(
            f"{wish.driver!r} is no kind of network",
            hint=f"Kinds: {', '.join(network_drivers.DRIVERS)}",
            field="driver",
        )
    parented = wish.driver in network_drivers.PARENTED
    if bool(wish.parent) != parented:
        raise UsageError(
            f"a network of the kind {wish.driver} "
            + ("needs the interface that it is on" if parented else "has no parent"),
            hint="--driver macvlan --parent eth1, or eth1.100 for its VLAN 100",
            field="parent",
        )
    if len(wish.parent) > limits.INTERFACE_NAME_LENGTH_MAX or not _INTERFACE.fullmatch(wish.parent):
        raise UsageError(
            f"{wish.parent!r} cannot be an interface's name",
            hint="'ip link' lists this host's",
            field="parent",
        )
    if wish.driver != network_drivers.OVERLAY and wish.vni is not None:
        raise UsageError(
            f"vni does not go with a network of the kind {wish.driver}",
            why="networks of the kind overlay alone have one",
            hint="Leave it out",
            field="vni",
        )
    if parented and (wish.isolate_subnets or not wish.subnets):
        raise UsageError(
            f"a network of the kind {wish.driver} "
            + ("needs its subnet" if not wish.subnets else "does not route between its subnets"),
            why="its containers are on a segment that exists: its addresses and its router are "
            "not ours",
            hint="--subnet 192.168.7.0/24 --gateway 192.168.7.1 --ip-range 192.168.7.192/26",
            field="isolate_subnets" if wish.subnets else "subnets",
        )


def _labels(wish: Wish) -> tuple[tuple[str, str], ...]:
    found = tuple(sorted([*wish.labels, *network_drivers.labels_of(wish.driver, wish.parent)]))
    if len(found) > limits.LABEL_COUNT_MAX:
        raise UsageError(
            f"there are {len(found)} labels; {limits.LABEL_COUNT_MAX} is the limit",
            why="kind and parent are among them",
            field="labels",
        )
    return found


def _require_same(existing: Network, wish: Wish) -> None:
    same = len(wish.subnets) in (0, len(existing.subnets)) and all(
        matches(subnet, asked)
        for asked, subnet in zip(wish.subnets, existing.subnets, strict=False)
    )
    if wish.vni is not None and wish.vni != existing.vni:
        same = False
    options = (wish.internal, wish.isolate_subnets, wish.driver, wish.parent)
    kind, parent = network_drivers.driver_of(existing), network_drivers.parent_of(existing)
    if not same or options != (existing.internal, existing.isolate_subnets, kind, parent):
        shown = " ".join(str(subnet) for subnet in existing.subnets)
        raise ConflictError(
            f"there is a network {existing.name!r} already, and it differs",
            why=f"it is of the kind {f'{kind} on {parent}' if parent else kind}, "
            f"has {shown}, VNI {existing.vni}{', internal' if existing.internal else ''}"
            f"{', isolated subnets' if existing.isolate_subnets else ''}",
            hint="Choose another name, or remove it: overlayd network rm " + existing.name,
        )


def _subnets(directory: Directory, wish: Wish, around: Surroundings) -> tuple[Subnet, ...]:
    if len(wish.subnets) > limits.SUBNET_COUNT_MAX:
        raise UsageError(f"a network has at most {limits.SUBNET_COUNT_MAX} subnets")
    if not wish.subnets:
        return (_default_subnet(directory, around),)
    found: list[Subnet] = []
    for asked in wish.subnets:
        subnet_range = parse_range(asked.subnet)
        if any(subnet_range.overlaps(subnet.network) for subnet in found):
            raise UsageError(f"subnet {subnet_range} overlaps another one of this network")
        route = around.overlapping_route(subnet_range)
        # The segment that a parent is on is the host's as well.
        if route is not None and not wish.force and wish.driver not in network_drivers.PARENTED:
            raise ConflictError(
                f"subnet {subnet_range} overlaps a route of this host",
                why=route,
                hint="Containers could not reach what is behind that route. Choose another "
                "range, or insist with --force",
            )
        found.append(subnet_of(asked))
    return tuple(found)


def _default_subnet(directory: Directory, around: Surroundings) -> Subnet:
    taken = [subnet.network for network in directory.networks() for subnet in network.subnets]
    for candidate in _DEFAULT_POOL.subnets(new_prefix=_DEFAULT_PREFIX):
        if any(candidate.version == other.version and candidate.overlaps(other) for other in taken):
            continue
        if around.overlapping_route(candidate) is None:
            return subnet_of(SubnetWish(str(candidate)))
    raise ConflictError(
        f"no /{_DEFAULT_PREFIX} of {_DEFAULT_POOL} is free on this host",
        hint="Name a subnet: --subnet ADDRESS/LENGTH",
    )


def _vni(
    directory: Directory,
    wish: Wish,
    around: Surroundings,
    count: int,
    removers: Mapping[int, NodeId],
) -> Vni:
    taken = set(around.vnis_in_use)
    holders: dict[int, str] = {}
    for network in directory.networks():
        for index in range(len(network.subnets)):
            taken.add(network.vni + index)
            holders[network.vni + index] = network.name
    if wish.vni is not None:
        if not 1 <= wish.vni <= limits.VNI_MAX - count + 1:
            raise UsageError(f"a VNI is a number from 1 to {limits.VNI_MAX}, not {wish.vni}")
        if wish.vni in removers:
            raise ConflictError(
                f"VNI {wish.vni} is not free yet",
                why=f"{directory.node_name(removers[wish.vni])} has removed the network that had "
                "it, and has not heard of its end",
                hint="Try again in a moment; or leave --vni out and a free one is drawn",
            )
        for vni in range(wish.vni, wish.vni + count):
            if vni in taken:
                holder = (
                    f"network {holders[vni]}"
                    if vni in holders
                    else ("a VXLAN device of another program on this host, on the same UDP port")
                )
                raise ConflictError(
                    f"VNI {vni} is taken",
                    why=f"{holder} uses it",
                    hint="Leave --vni out and a free one is drawn",
                )
        return Vni(wish.vni)
    while True:
        drawn = limits.VNI_DRAWN_MIN + secrets.randbelow(limits.VNI_MAX - limits.VNI_DRAWN_MIN - 8)
        if drawn not in removers and taken.isdisjoint(range(drawn, drawn + count)):
            return Vni(drawn)
