"""Create and remove networks, and choose their subnets and VNIs.

Owns: the rules for a valid network definition. Does not: know containers, sandboxes or the API.
"""

from __future__ import annotations

import ipaddress
import re
import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from overlay import limits
from overlay.agent.gossip.service import GossipService
from overlay.agent.isolation.drivers import require_bridged
from overlay.agent.networks import exportable
from overlay.agent.networks.settings import require_policed
from overlay.agent.networks.spec import NetworkSpec, require_same
from overlay.agent.networks.subnets import (
    Range,
    SubnetSpec,
    parse_range,
    subnet_of,
    unique_local_range,
)
from overlay.agent.records.directory import Directory
from overlay.core.dataplane import network_drivers
from overlay.core.dataplane.controls.shared_rate import SHARED_RATE_LABEL, require_sharing
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import CLUSTER_SCOPE, Participation, RemovedNetwork, key_of
from overlay.errors import ConflictError, UsageError
from overlay.model import (
    DEFAULT_DENY_LABEL,
    EVPN_LABEL,
    ISOLATE_PORTS_LABEL,
    RESERVED_NETWORK_NAMES,
    Network,
    NodeId,
    Subnet,
    Vni,
)

# Tried in this order where no subnet is asked for: less common than 10.0.0.0/16 and the like.
_DEFAULT_POOL = ipaddress.ip_network("10.32.0.0/11")
_DEFAULT_PREFIX = 16
_INTERFACE = re.compile(r"[^\s/:]*")


@dataclass(frozen=True, slots=True)
class HostConstraints:
    """The routes and VNIs of this host that a new network must not collide with."""

    overlapping_route: Callable[[Range], str | None]  # text of the route, or None
    vnis_in_use: frozenset[int]  # VXLAN devices of others on our UDP port


def create(
    gossip: GossipService, directory: Directory, spec: NetworkSpec, constraints: HostConstraints
) -> Network:
    """Define a network and return it; the same definition again returns the existing one.

    Raises UsageError for an invalid definition, and ConflictError for one that collides.
    """
    _require_name(spec)
    require_valid(spec)
    existing = directory.find_network(spec.name)
    if existing is not None:
        require_same(existing, spec)
        return existing
    _require_room(directory)
    subnets = _subnets(directory, spec, constraints)
    network = Network(
        vni=_vni(directory, spec, constraints, len(subnets), directory.removers(gossip.node_id)),
        name=spec.name,
        subnets=subnets,
        creator=gossip.node_id,
        internal=spec.internal,
        labels=_labels(spec),
        isolate_subnets=spec.isolate_subnets,
    )
    part = Participation(vni=network.vni, forwards=False)
    gossip.publish(gossip.commit(CLUSTER_SCOPE, [network, part]))
    return network


def check(
    gossip: GossipService, directory: Directory, spec: NetworkSpec, constraints: HostConstraints
) -> None:
    """Raise the error with which `create` would refuse a new network; nothing is written."""
    _require_name(spec)
    require_valid(spec)
    _require_room(directory)
    subnets = _subnets(directory, spec, constraints)
    _vni(directory, spec, constraints, len(subnets), directory.removers(gossip.node_id))
    _labels(spec)


def require_unused(directory: Directory, network: Network, *, services_end: bool = False) -> None:
    """Raise ConflictError while endpoints are on a network, or may be; or services, or routers.

    `services_end`: its services are removed before it, and it is taken off its routers. Hosts that
    these alone lead to it have nothing to show, so none is waited for.
    """
    name = network.name
    routers = directory.routers
    connected = () if routers is None else routers.on(network.vni)
    if connected and not services_end:
        raise ConflictError(
            f"network {name} is in use",
            why=f"router {connected[0].name} connects it with other networks",
            hint=f"overlayd router set {connected[0].name} --remove {name}; or remove the router: "
            f"overlayd router rm {connected[0].name}",
        )
    for node_id in [] if connected else directory.unseen(network.vni)[:1]:
        raise _unseen_error(name, directory.node_name(node_id), directory.node_state(node_id))
    services = [each.service.name for each in directory.services(network.vni)]
    if services and not services_end:
        more = f" and {len(services) - 5} more" if len(services) > 5 else ""
        raise ConflictError(
            f"network {name} is in use",
            why=f"it has services: {', '.join(services[:5])}{more}",
            hint=f"Remove them first: overlayd service rm {' '.join(services[:5])}",
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


def _unseen_error(network: str, host: str, state: MemberState) -> ConflictError:
    """Return the error for a network on a host whose endpoints are not known here."""
    if state is MemberState.DEAD:
        why = f"{host} is dead, and has never sent this host what is attached to it there"
        hint = f"Start {host}; or, if it is powered off for good: overlayd forget --powered-off "
        return ConflictError(f"network {network} may be in use", why=why, hint=hint + host)
    return ConflictError(
        f"network {network} may be in use",
        why=f"this host does not know yet what is attached to it on {host}",
        hint=f"Try again in a moment, or on {host}: overlayd network rm {network}",
    )


def remove(gossip: GossipService, directory: Directory, name: str) -> Network:
    """Remove a network everywhere; raises ConflictError while endpoints are on it, or may be."""
    network = directory.network(name)
    name = network.name
    require_unused(directory, network)
    removals = gossip.node.store.values_of(gossip.node_id, CLUSTER_SCOPE, "removed")
    if network.creator == gossip.node_id:
        segments = gossip.commit(CLUSTER_SCOPE, deletes=record_keys(network))
    elif sum(1 for _ in removals) >= limits.REMOVED_NETWORKS_PER_NODE_MAX:
        raise ConflictError(
            f"this host has requested {limits.REMOVED_NETWORKS_PER_NODE_MAX} removals: the limit",
            why="their creators are down, or forgotten",
            hint=f"On another host: overlayd network rm {name}",
        )
    else:
        segments = gossip.commit(CLUSTER_SCOPE, [RemovedNetwork(network.vni, network.creator)])
    gossip.publish(segments)
    return network


def record_keys(network: Network) -> list[tuple[str, bytes]]:
    """Return the keys of the records that a network's creator wrote for it."""
    return [key_of(network), key_of(Participation(network.vni, forwards=False))]


def require_valid(spec: NetworkSpec) -> None:
    """Raise UsageError for options that the network's driver does not support."""
    capabilities = network_drivers.CAPABILITIES.get(spec.driver)
    if capabilities is None:
        raise UsageError(
            f"unknown network driver {spec.driver!r}",
            hint=f"Drivers: {', '.join(network_drivers.CAPABILITIES)}",
            field="driver",
        )
    if bool(spec.parent) != capabilities.needs_parent:
        raise UsageError(
            f"parent is {'required' if capabilities.needs_parent else 'not supported'} "
            f"by driver {spec.driver}",
            hint="--driver macvlan --parent eth1, or eth1.100 for its VLAN 100",
            field="parent",
        )
    if len(spec.parent) > limits.INTERFACE_NAME_LENGTH_MAX or not _INTERFACE.fullmatch(spec.parent):
        raise UsageError(
            f"{spec.parent!r} is not a valid interface name",
            hint="'ip link' lists the interfaces of this host",
            field="parent",
        )
    given = any(parse_range(each.subnet).version == 6 for each in spec.subnets)
    if spec.ipv6 and (given or capabilities.needs_parent):
        raise UsageError(
            "ipv6 chooses an IPv6 subnet, and one is given"
            if given
            else f"ipv6 is not supported by driver {spec.driver}",
            why="" if given else "the segment has its own router, and with it its own prefix",
            hint="Leave one of them out" if given else "Give its prefix: --subnet PREFIX/64",
            field="ipv6",
        )
    if spec.encrypted and not capabilities.has_tunnel:
        raise UsageError(
            f"encrypted is not supported by driver {spec.driver}",
            why="overlayd encrypts what it carries between hosts, which is an overlay's frames",
            hint="Leave it out, or use --driver overlay",
            field="encrypted",
        )
    if EVPN_LABEL in spec.labels:
        exportable.require_definable(spec.driver, spec.vni, encrypted=spec.encrypted)
    _require_judged(spec)
    if not capabilities.has_tunnel and spec.vni is not None:
        raise UsageError(
            f"vni is not supported by driver {spec.driver}",
            why="only networks with tunnels have a VNI of their own",
            hint="Leave it out",
            field="vni",
        )
    if capabilities.needs_parent and (spec.isolate_subnets or not spec.subnets):
        raise UsageError(
            "isolate_subnets is not supported by driver " + spec.driver
            if spec.subnets
            else f"a subnet is required by driver {spec.driver}",
            why="its containers are on an existing segment, whose addresses and router overlayd "
            "does not choose",
            hint="--subnet 192.168.7.0/24 --gateway 192.168.7.1 --ip-range 192.168.7.192/26",
            field="isolate_subnets" if spec.subnets else "subnets",
        )


def _require_judged(spec: NetworkSpec) -> None:
    """Raise ConflictError or UsageError for what only drivers whose frames overlayd sees have."""
    if SHARED_RATE_LABEL in dict(spec.labels):
        require_sharing(spec.driver)
    if DEFAULT_DENY_LABEL in spec.labels:
        require_policed(spec.name, spec.driver)
    if ISOLATE_PORTS_LABEL in spec.labels:
        require_bridged(spec.name, spec.driver, "isolate ports")


def _require_name(spec: NetworkSpec) -> None:
    if spec.name.lower() in RESERVED_NETWORK_NAMES:
        raise UsageError(
            f"a network cannot be named {spec.name!r}",
            why=f"'container add --network {spec.name.lower()}' means something else",
            hint="Choose another name",
            field="name",
        )


def _require_room(directory: Directory) -> None:
    """Raise ConflictError at the limit, which counts this node's own networks only.

    Otherwise a member that writes very many networks would keep all others from creating one.
    """
    claims = directory.view.network_claims()
    count = sum(1 for creator, _ in claims if creator == directory.own)
    if count >= limits.NETWORKS_PER_NODE_MAX:
        raise ConflictError(
            f"this host has created {count} networks: the limit",
            why="each host has a limit of its own",
            hint="Remove one: overlayd network rm NAME; or create the network on another host",
        )


def _labels(spec: NetworkSpec) -> tuple[tuple[str, str], ...]:
    own = network_drivers.labels_of(spec.driver, spec.parent, encrypted=spec.encrypted)
    found = tuple(sorted([*spec.labels, *own]))
    if len(found) > limits.LABEL_COUNT_MAX:
        raise UsageError(
            f"there are {len(found)} labels; {limits.LABEL_COUNT_MAX} is the limit",
            why="driver, parent, --any-name and --no-port-security are among them",
            hint="Remove one of the labels",
            field="labels",
        )
    return found


def _subnets(
    directory: Directory, spec: NetworkSpec, constraints: HostConstraints
) -> tuple[Subnet, ...]:
    if len(spec.subnets) > limits.SUBNET_COUNT_MAX:
        raise UsageError(
            f"a network has at most {limits.SUBNET_COUNT_MAX} subnets",
            hint="Choose larger subnets, or create another network",
        )
    found: list[Subnet] = [] if spec.subnets else [default_subnet(directory, constraints)]
    for asked in spec.subnets:
        subnet_range = parse_range(asked.subnet)
        if any(subnet_range.overlaps(subnet.network) for subnet in found):
            raise UsageError(
                f"subnet {subnet_range} overlaps another one of this network",
                hint="Choose subnets that have no address in common",
            )
        route = constraints.overlapping_route(subnet_range)
        # The host itself has a route to the segment that a parent is on.
        shared = network_drivers.CAPABILITIES[spec.driver].needs_parent
        if route is not None and not spec.force and not shared:
            raise ConflictError(
                f"subnet {subnet_range} overlaps a route of this host",
                why=route,
                hint="Containers could not reach what is behind that route. Choose another "
                "subnet, or use --force",
            )
        found.append(subnet_of(asked))
    if spec.ipv6:
        found.append(_unique_local_subnet(directory, constraints))
    return tuple(found)


def _unique_local_subnet(directory: Directory, constraints: HostConstraints) -> Subnet:
    """Return an IPv6 subnet that nothing known here overlaps, at random; raises ConflictError."""
    holder: str | None = None
    for _ in range(limits.SUBNET_DRAWS_MAX):
        chosen = parse_range(unique_local_range(secrets.token_bytes(5)))
        taken = (
            f"network {network.name}, with subnet {other}"
            for network, other in _all_subnets(directory)
            if chosen.overlaps(other.network)
        )
        holder = next(taken, None) or constraints.overlapping_route(chosen)
        if holder is None:
            return subnet_of(SubnetSpec(str(chosen)))
    raise ConflictError(
        "no unique local IPv6 subnet is free on this host",
        why=f"the last one that was drawn overlaps {holder}",
        hint="Choose one: --subnet ADDRESS/LENGTH",
    )


def overlaps(directory: Directory, network: Network) -> list[str]:
    """Return how the subnets of a network overlap those of others, as texts."""
    return [
        f"{subnet} overlaps {other} of network {item.name}"
        for subnet in network.subnets
        for item, other in _all_subnets(directory)
        if item.vni != network.vni and subnet.network.overlaps(other.network)
    ]


def _all_subnets(directory: Directory) -> Iterator[tuple[Network, Subnet]]:
    return ((network, each) for network in directory.networks() for each in network.subnets)


def default_subnet(
    directory: Directory, constraints: HostConstraints, reserved: Sequence[Range] = ()
) -> Subnet:
    """Return a free subnet for a network without one; raises ConflictError."""
    taken = [*reserved, *(subnet.network for _, subnet in _all_subnets(directory))]
    for candidate in _DEFAULT_POOL.subnets(new_prefix=_DEFAULT_PREFIX):
        if any(candidate.version == other.version and candidate.overlaps(other) for other in taken):
            continue
        if constraints.overlapping_route(candidate) is None:
            return subnet_of(SubnetSpec(str(candidate)))
    raise ConflictError(
        f"no /{_DEFAULT_PREFIX} of {_DEFAULT_POOL} is free on this host",
        hint="Choose a subnet: --subnet ADDRESS/LENGTH",
    )


def _vni(
    directory: Directory,
    spec: NetworkSpec,
    constraints: HostConstraints,
    count: int,
    removers: Mapping[int, NodeId],
) -> Vni:
    taken = set(constraints.vnis_in_use)
    holders: dict[int, str] = {}
    for network in directory.networks():
        for index in range(len(network.subnets)):
            taken.add(network.vni + index)
            holders[network.vni + index] = network.name
    if spec.vni is not None:
        if not 1 <= spec.vni <= limits.VNI_MAX - count + 1:
            raise UsageError(f"vni must be from 1 to {limits.VNI_MAX}, not {spec.vni}")
        if spec.vni in removers:
            raise ConflictError(
                f"VNI {spec.vni} is not free yet",
                why=f"{directory.node_name(removers[spec.vni])} removed the network that had it, "
                "and does not know yet that it is gone",
                hint="Try again in a moment; or leave --vni out to get a free one",
            )
        for vni in range(spec.vni, spec.vni + count):
            if vni in taken:
                holder = (
                    f"network {holders[vni]}"
                    if vni in holders
                    else ("a VXLAN device of another program on this host, on the same UDP port")
                )
                raise ConflictError(
                    f"VNI {vni} is taken",
                    why=f"{holder} uses it",
                    hint="Leave --vni out to get a free one",
                )
        return Vni(spec.vni)
    while True:
        drawn = limits.VNI_DRAWN_MIN + secrets.randbelow(limits.VNI_MAX - limits.VNI_DRAWN_MIN - 8)
        if drawn not in removers and taken.isdisjoint(range(drawn, drawn + count)):
            return Vni(drawn)
