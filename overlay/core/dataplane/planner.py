"""The planner: the desired state of a network's sandbox from records.

Owns: a pure function of plain inputs. Does not: know the store, liveness or the kernel; its
caller decides whose records count (a dead agent's still do, because its data plane forwards).

A network consists of *segments*: one bridge and one VXLAN device each, `br0` and `vxlan0`, `br1`
and `vxlan1`, with the network's VNI plus the segment's number; a network of the driver `bridge`
(`core.dataplane.network_drivers`) has no VXLAN devices, and one that is being switched to
encryption or back has two for a while (`core.dataplane.tunnel_devices`). The n-th IPv4 subnet and
the n-th IPv6 subnet share segment n, so that a dual-stack container has both addresses on its one
interface; two subnets of one family are two segments, routed between their bridges.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import NamedTuple

from overlay.core.dataplane.conflicts import Claim, OwnerOf, better_for_ip, better_for_mac
from overlay.core.dataplane.gateways import gateway_macs
from overlay.core.dataplane.network_drivers import has_tunnel
from overlay.core.dataplane.port_security import (
    allowed_mac_rows,
    guard_row,
    policed_port_row,
    policed_segment_rows,
    port_rows,
    segment_rows,
)
from overlay.core.dataplane.rate_limits import rate_row, rates_on
from overlay.core.dataplane.state import (
    HOST_PORT_PREFIX,
    PORT_PREFIX,
    AddressRow,
    BarrierRow,
    Bridge,
    BridgeFdbRow,
    FdbRow,
    FloodRow,
    HookRow,
    InterceptRow,
    Link,
    NeighborRow,
    PolicyClassRow,
    Port,
    RouteRow,
    Row,
    SandboxState,
    VerdictRow,
    Vxlan,
)
from overlay.core.dataplane.tunnel_devices import DEVICE_BASES, other_base
from overlay.core.fabric import NO_FABRIC, FabricRows
from overlay.model import Endpoint, Ip, Mac, Network, NodeId, Vni, gateway_mac, is_host


class LocalPort(NamedTuple):
    """The sandbox's end of a local endpoint's veth pair, and its subnet."""

    name: str
    subnet_index: int
    endpoint_id: bytes = b""


class RemoteEndpoint(NamedTuple):
    """An endpoint of another node, and that node's VTEP."""

    origin: NodeId
    vtep: Ip
    endpoint: Endpoint


@dataclass(frozen=True, slots=True, eq=False)
class PolicyRows:
    """The rows of a network's policies on one host; a new value after each change."""

    rows: tuple[PolicyClassRow | VerdictRow, ...] = ()
    fault: str = ""  # why they are not what was asked for: then nothing new is allowed


@dataclass(frozen=True, slots=True)
class PlanInput:
    """The whole input of one sandbox's plan."""

    network: Network
    port: int  # UDP, the cluster's VXLAN port
    local: Ip  # this node's VTEP address
    mtu: int  # of the overlay, so that frames fit the underlay's packets
    ports: tuple[LocalPort, ...] = ()
    locals: tuple[Endpoint, ...] = ()  # this node's endpoints on the network
    remotes: tuple[RemoteEndpoint, ...] = ()
    flood: tuple[Ip, ...] = ()  # VTEPs of the nodes that have a sandbox for this network
    owner_of: OwnerOf | None = None  # decides between two claims to one address
    receiving: Ip | None = None  # local address of a second VXLAN device, without rows
    device_base: str = DEVICE_BASES[0]  # of the names of the devices that send
    fabric: FabricRows = NO_FABRIC  # what BGP EVPN has of outside VTEPs; records have precedence
    policy: PolicyRows | None = None  # None: no policy, and new connections are allowed


def segment_of(network: Network, subnet_index: int) -> int:
    """Return the number of a subnet's segment: its rank in its family."""
    if subnet_index == 0:
        return 0  # nearly always, and called for each port in each pass
    size = len(network.subnets[subnet_index].base)
    return sum(len(subnet.base) == size for subnet in network.subnets[:subnet_index])


def segment_count(network: Network) -> int:
    """Return the number of segments, and so of VNIs, of a network."""
    return 1 + max(segment_of(network, index) for index in range(len(network.subnets)))


def bridge_name(network: Network, subnet_index: int) -> str:
    """Return the bridge that a subnet's endpoints are connected to."""
    return f"br{segment_of(network, subnet_index)}"


def plan_sandbox(
    given: PlanInput,
    *,
    fast_path: bool = False,
    guarded: bool = False,
    intercepting: bool = False,
    policing: bool = True,
) -> SandboxState:
    """Return the desired state of a sandbox; equal inputs give equal states.

    `fast_path` adds the rows of the eBPF fast path, `guarded` those of port security,
    `intercepting` those that bring queries for other resolvers to this node's DNS server. Without
    `policing`, the ports of a network that has policies are on no bridge.

    Where two remote endpoints claim one address, all nodes plan the rows of the same winner. A
    remote claim to the address or MAC of a local endpoint gets no rows: one that sends a local
    container's frames away would conflict with what its bridge port learns. An endpoint with a
    gateway's MAC gets no rows either, wherever it is: a local one's port stays closed.
    """
    is_policed = given.policy is not None and policing
    is_shut = given.policy is not None and not policing
    links = {link.name: link for link in _links(given, is_shut=is_shut)}

    def rows() -> Iterator[Row]:  # a generator: there may be very many rows
        yield from _network_rows(given, is_shut=is_shut)
        if intercepting:
            yield from _intercept_rows(given.network)
        if given.policy is not None and policing:
            yield from given.policy.rows
        if fast_path or is_policed:
            hooks = _segment_hooks(given, is_policed=is_policed)
            yield from hooks if fast_path else _without_redirection(hooks)
        reserved = gateway_macs(given.network)
        by_id = {each.endpoint_id: each for each in given.locals if each.mac not in reserved}
        own = {each.mac for each in by_id.values()}
        for port in (*given.ports, *_host_ports(given)):
            if port.name not in links or is_shut:
                continue
            if is_policed:
                yield from policed_hooks(given.network, port)
            endpoint = by_id.get(port.endpoint_id)
            if endpoint is None:
                continue
            rates = rates_on(given.network, endpoint)
            if fast_path:
                segment = segment_of(given.network, port.subnet_index)
                yield from port_rows(segment, port.name, endpoint, rates, is_policed=is_policed)
                yield from allowed_mac_rows(segment, endpoint, own)
            if guarded:
                yield guard_row(given.network, port.name, endpoint)
            rate = rate_row(port.name, rates)
            if rate is not None:
                yield rate

    return SandboxState(links, frozenset(rows()))


def policed_hooks(network: Network, port: LocalPort) -> Iterator[HookRow]:
    """Return the hooks of a port of a network that has policies."""
    segment = segment_of(network, port.subnet_index)
    yield policed_port_row(segment, port.name)
    if not port.name.startswith(HOST_PORT_PREFIX):
        yield HookRow(segment, port.name, is_policed=True)


def _segment_hooks(given: PlanInput, *, is_policed: bool) -> Iterator[Row]:
    network, bases = given.network, _bases(given)
    count = segment_count(network)
    yield from segment_rows(network, count, given.device_base, bases, is_policed=is_policed)
    if is_policed:
        yield from policed_segment_rows(network, count, bases)


def _without_redirection(rows: Iterable[Row]) -> Iterator[Row]:
    """Leave the hooks, which then only check, and hand on to the bridge."""
    return (row for row in rows if isinstance(row, HookRow))


def _network_rows(given: PlanInput, *, is_shut: bool) -> Iterator[Row]:
    yield from _gateway_rows(given.network)
    if has_tunnel(given.network):
        yield from _tunnel_rows(given)
    if not is_shut:
        yield from _exit_rows(given)
    if given.network.isolate_subnets:
        yield from _barrier_rows(given.network)


def _tunnel_rows(given: PlanInput) -> Iterator[Row]:
    own = given.local
    same_family = {vtep for vtep in given.flood if len(vtep) == len(own)} - {own}
    for segment in range(segment_count(given.network)):
        vni = given.network.vni + segment
        outside = {row.vtep for row in given.fabric.floods if row.vni == vni}
        outside = {vtep for vtep in outside if len(vtep) == len(own)} - {own}
        vteps = sorted(same_family | outside)
        yield from (FloodRow(f"{given.device_base}{segment}", vtep) for vtep in vteps)
    yield from _remote_rows(given)


def _links(given: PlanInput, *, is_shut: bool) -> Iterator[Link]:
    network = given.network
    for segment in range(segment_count(network)):
        bridge = f"br{segment}"
        yield Bridge(bridge, gateway_mac(network.vni, segment), given.mtu)
        if not has_tunnel(network):
            continue
        for base, local in zip(_bases(given), (given.local, given.receiving), strict=False):
            name, vni = f"{base}{segment}", Vni(network.vni + segment)
            yield Vxlan(name, vni, local or given.local, given.port, given.mtu, bridge)
    for port in (*given.ports, *_host_ports(given)):
        bridge = bridge_name(network, port.subnet_index)
        yield Port(port.name, given.mtu, "" if is_shut else bridge)


def _bases(given: PlanInput) -> tuple[str, ...]:
    """Return what the names of the VXLAN devices begin with, those that send first."""
    if given.receiving is None:
        return (given.device_base,)
    return (given.device_base, other_base(given.device_base))


def _host_ports(given: PlanInput) -> Iterator[LocalPort]:
    """Return the ports of this host's endpoints, one per segment at most."""
    for endpoint in given.locals:
        if is_host(endpoint):
            for index, subnet in enumerate(given.network.subnets):
                if endpoint.ips[0] in subnet:
                    segment = segment_of(given.network, index)
                    yield LocalPort(host_port_name(segment), index, endpoint.endpoint_id)


def host_port_name(segment: int) -> str:
    """Return the name of the port of this host's endpoint on a segment."""
    return f"{HOST_PORT_PREFIX}{segment}"


def port_name(endpoint_id: bytes) -> str:
    """Return the name of the port of a container's endpoint."""
    return f"{PORT_PREFIX}{endpoint_id[:6].hex()}"


def _gateway_rows(network: Network) -> Iterator[Row]:
    for index, subnet in enumerate(network.subnets):
        yield AddressRow(bridge_name(network, index), subnet.gateway, subnet.prefix_length)


def _intercept_rows(network: Network) -> Iterator[Row]:
    for index, subnet in enumerate(network.subnets):
        yield InterceptRow(bridge_name(network, index), len(subnet.gateway))


def _exit_rows(given: PlanInput) -> Iterator[Row]:
    """Return the rows for this host's endpoints, and the routes through them.

    Fixed neighbor and FDB rows, so that no frame for this host is flooded to the others.
    """
    segments = Segments(given.network)
    exits: dict[int, tuple[int, Ip]] = {}  # by family: the first segment's
    for endpoint in given.locals:
        for ip in endpoint.ips if is_host(endpoint) else ():
            segment = segments.of(ip)
            if segment is None:
                continue
            yield NeighborRow(f"br{segment}", ip, endpoint.mac)
            yield BridgeFdbRow(host_port_name(segment), endpoint.mac)
            exits[len(ip)] = min(exits.get(len(ip), (segment, ip)), (segment, ip))
    for size, (segment, ip) in exits.items():
        yield RouteRow(f"br{segment}", Ip(bytes(size)), 0, ip)


def _barrier_rows(network: Network) -> Iterator[Row]:
    for index, subnet in enumerate(network.subnets):
        for segment in range(segment_count(network)):
            if segment != segment_of(network, index):
                yield BarrierRow(f"br{segment}", subnet.prefix_length, subnet.base)


def _remote_rows(given: PlanInput) -> Iterator[Row]:
    vni = given.network.vni
    excluded = gateway_macs(given.network).union(endpoint.mac for endpoint in given.locals)
    local_ips = {ip for endpoint in given.locals for ip in endpoint.ips}
    segments = Segments(given.network)
    by_mac: dict[tuple[int, Mac], RemoteEndpoint] = {}
    by_ip: dict[Ip, tuple[int, RemoteEndpoint]] = {}
    for remote in given.remotes:
        endpoint = remote.endpoint
        if len(remote.vtep) != len(given.local) or remote.vtep == given.local:
            continue  # another underlay family is unreachable; a node's own VTEP is no remote
        if endpoint.mac in excluded:
            continue  # nor a neighbor: frames for that address would arrive here
        for ip in endpoint.ips:
            segment = segments.of(ip)
            if segment is None:
                continue
            current = by_mac.setdefault((segment, endpoint.mac), remote)
            if current is not remote and better_for_mac(
                vni, _claim(remote), _claim(current), given.owner_of
            ):
                by_mac[segment, endpoint.mac] = remote
            if ip not in local_ips:
                _, current = by_ip.setdefault(ip, (segment, remote))
                if current is not remote and better_for_ip(
                    vni, ip, _claim(remote), _claim(current), given.owner_of
                ):
                    by_ip[ip] = (segment, remote)
    # Share one string per segment: 100,000 rows would hold as many strings of 55 bytes.
    segments_there = range(segment_count(given.network))
    names = [(f"{given.device_base}{segment}", f"br{segment}") for segment in segments_there]
    for (segment, mac), remote in by_mac.items():
        vxlan, _ = names[segment]
        yield FdbRow(vxlan, mac, remote.vtep)
        yield BridgeFdbRow(vxlan, mac)
    for ip, (segment, remote) in by_ip.items():
        _, bridge = names[segment]
        yield NeighborRow(bridge, ip, remote.endpoint.mac)
    if given.fabric.macs:
        yield from _fabric_rows(given, by_mac.keys(), local_ips | by_ip.keys(), segments)


def _fabric_rows(
    given: PlanInput,
    recorded_macs: AbstractSet[tuple[int, Mac]],
    recorded_ips: AbstractSet[Ip],
    segments: Segments,
) -> Iterator[Row]:
    """Return the rows of outside VTEPs, but for the MACs and addresses that records have."""
    excluded = gateway_macs(given.network).union(endpoint.mac for endpoint in given.locals)
    count = segment_count(given.network)
    taken: set[tuple[int, Mac]] = set()
    for vni, mac, vtep in given.fabric.macs:
        segment = vni - given.network.vni
        is_reachable = len(vtep) == len(given.local) and vtep != given.local
        is_free = mac not in excluded and (segment, mac) not in recorded_macs
        if 0 <= segment < count and is_reachable and is_free:
            taken.add((segment, mac))
            yield FdbRow(f"{given.device_base}{segment}", mac, vtep)
            yield BridgeFdbRow(f"{given.device_base}{segment}", mac)
    for vni, ip, mac in given.fabric.neighbors:
        segment = vni - given.network.vni
        is_free = ip not in recorded_ips and segments.of(ip) == segment
        if is_free and (segment, mac) in taken:
            yield NeighborRow(f"br{segment}", ip, mac)


def _claim(remote: RemoteEndpoint) -> Claim:
    return Claim(remote.origin, remote.endpoint)


class Segments:
    """Finds the segment of an address by its prefix; made for many lookups."""

    def __init__(self, network: Network) -> None:
        self._subnets = [
            (
                len(subnet.base),
                8 * len(subnet.base) - subnet.prefix_length,
                int.from_bytes(subnet.base, "big") >> 8 * len(subnet.base) - subnet.prefix_length,
                segment_of(network, index),
                subnet.gateway,
            )
            for index, subnet in enumerate(network.subnets)
        ]

    def of(self, ip: Ip) -> int | None:
        """Return the segment, or None if no container can have this address."""
        number = int.from_bytes(ip, "big")
        for size, shift, prefix, segment, gateway in self._subnets:
            if size == len(ip) and number >> shift == prefix:
                return None if ip == gateway else segment
        return None
