"""The planner: the desired state of a network's sandbox from records.

Owns: a pure function of plain inputs. Does not: know the store, liveness or the kernel; its
caller decides whose records count (a dead agent's still do, because its data plane forwards).

A network of the driver `bridge` (`core.dataplane.network_drivers`) has no VXLAN devices, and one
that is being switched to encryption or back has two for a while (`core.dataplane.tunnel_devices`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from collections.abc import Set as AbstractSet

from overlay.core.dataplane.controls.port_controls import control_rows, controls_on
from overlay.core.dataplane.controls.priority import mark_rows
from overlay.core.dataplane.gateways import gateway_macs
from overlay.core.dataplane.network_drivers import has_tunnel
from overlay.core.dataplane.planning.inputs import LocalPort, PlanInput
from overlay.core.dataplane.planning.isolation import isolation_rows
from overlay.core.dataplane.planning.links import (
    host_ports,
    links,
    natively,
    shortcut_name,
    tunnel_bases,
)
from overlay.core.dataplane.planning.planned_rows import PlannedRows
from overlay.core.dataplane.planning.plug import plug_hooks, sending_by_bridge
from overlay.core.dataplane.planning.remote_table import RemoteTable, table_of
from overlay.core.dataplane.planning.router_rows import router_hooks, router_rows
from overlay.core.dataplane.planning.segments import (
    Segments,
    bridge_name,
    host_port_name,
    segment_count,
    segment_of,
)
from overlay.core.dataplane.planning.tunnel_rows import tunnel_rows
from overlay.core.dataplane.planning.vlan_ports import shut_endpoints, vlan_hooks, vlan_row
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
    AddressRow,
    BarrierRow,
    BoundaryRow,
    BridgeFdbRow,
    HookRow,
    InterceptRow,
    NeighborRow,
    RouteRow,
    Row,
    SandboxState,
)
from overlay.core.vlan.vlans import NO_VLANS, Vlans, vlans_of
from overlay.model import Endpoint, Ip, Mac, Network, is_host, is_isolated


def plan_sandbox(
    given: PlanInput,
    table: RemoteTable | None = None,
    *,
    fast_path: bool = False,
    native: bool = False,
    guarded: bool = False,
    intercepting: bool = False,
    policing: bool = True,
) -> SandboxState:
    """Return the desired state of a sandbox; equal inputs give equal states.

    With a `table` of the remote endpoints, the state follows it: it is a value until the table is
    updated. Without one they are planned anew.

    `fast_path` adds the rows of the eBPF fast path, `native` with it what goes past the VXLAN
    device, `guarded` the rows of port security and other controls, `intercepting` those that bring
    queries for other resolvers to this node's DNS server. Without `policing`, the ports of a
    network that has policies are on no bridge, and without `guarded`, isolated ports are not. Ports
    in VLANs need both.

    An endpoint with a gateway's MAC gets no rows, wherever it is: a local one's port stays closed.
    """
    is_policed = given.policy is not None and policing
    is_shut = given.policy is not None and not policing
    marks = [*_mark_rows(given)] if policing else []
    closed = frozenset(shut_endpoints(given, guarded=guarded, programs=policing))
    given = natively(given, allowed=native and fast_path and not is_shut)
    remote = table_of(given) if table is None else table
    made = links(given, is_shut=is_shut, closed=closed, inherits_dscp=bool(marks))
    planned = {link.name: link for link in made}

    def rows() -> Iterator[Row]:
        yield from _network_rows(given, remote, is_shut=is_shut)
        if guarded:
            yield BoundaryRow()
            yield from isolation_rows(given, remote)
        if intercepting:
            yield from _intercept_rows(given.network)
        yield from marks
        if given.policy is not None and policing:
            yield from given.policy.rows
        if fast_path or is_policed:
            hooks = _segment_hooks(given, is_policed=is_policed)
            yield from hooks if fast_path else _without_redirection(hooks)
        if is_policed:
            yield from router_hooks(given)
        reserved = gateway_macs(given.network)
        by_id = {each.endpoint_id: each for each in given.locals if each.mac not in reserved}
        own = {each.mac for each in by_id.values()}
        for port in (*given.ports, *host_ports(given)):
            if port.name not in planned or is_shut:
                continue
            endpoint = by_id.get(port.endpoint_id)
            vlans = NO_VLANS if endpoint is None else vlans_of(endpoint)
            if policing:
                yield from required_hooks(given.network, port, vlans, is_policed=is_policed)
            if endpoint is None:
                continue
            if vlans.is_any and policing:
                yield vlan_row(port.name, vlans)
            if fast_path:
                yield from _fast_rows(given, port, endpoint, is_policed=is_policed)
                yield from _allowed_rows(given.network, port, endpoint, own)
            yield from _bridge_port_rows(given.network, port, endpoint, guarded=guarded)

    if table is None:
        return SandboxState(planned, frozenset((*rows(), *remote.rows)))
    return SandboxState(planned, PlannedRows(frozenset(rows()), table.rows))


def _allowed_rows(
    network: Network, port: LocalPort, endpoint: Endpoint, own: AbstractSet[Mac]
) -> Iterator[Row]:
    return allowed_mac_rows(segment_of(network, port.subnet_index), endpoint, own)


def _bridge_port_rows(
    network: Network, port: LocalPort, endpoint: Endpoint, *, guarded: bool
) -> Iterator[Row]:
    if guarded:
        yield guard_row(network, port.name, endpoint)
        yield from control_rows(port.name, controls_on(network, endpoint))
    rate = rate_row(port.name, rates_on(network, endpoint))
    if rate is not None:
        yield rate


def _mark_rows(given: PlanInput) -> Iterator[Row]:
    """Return the priorities of containers' ports."""
    by_id = {each.endpoint_id: each for each in given.locals}
    found = [
        (port.name, by_id[port.endpoint_id]) for port in given.ports if port.endpoint_id in by_id
    ]
    return mark_rows((name, controls_on(given.network, each).priority) for name, each in found)


def _fast_rows(
    given: PlanInput, port: LocalPort, endpoint: Endpoint, *, is_policed: bool
) -> Iterator[Row]:
    network, segment = given.network, segment_of(given.network, port.subnet_index)
    rows = port_rows(
        segment,
        port.name,
        endpoint,
        rates_on(network, endpoint),
        is_policed=is_policed,
        on_bridge=is_isolated(network, endpoint) or vlans_of(endpoint).is_any,
    )
    if vlans_of(endpoint).is_any:  # it has hooks of its own
        return (row for row in rows if not isinstance(row, HookRow))
    return sending_by_bridge(given, segment, rows)


def required_hooks(
    network: Network, port: LocalPort, vlans: Vlans, *, is_policed: bool
) -> Iterator[HookRow]:
    """Return the hooks that a port has with or without a fast path: by policies and VLANs."""
    segment = segment_of(network, port.subnet_index)
    if vlans.is_any:
        yield from vlan_hooks(segment, port.name, is_policed=is_policed)
    elif is_policed:
        yield policed_port_row(segment, port.name)
        if not port.name.startswith(HOST_PORT_PREFIX):
            yield HookRow(segment, port.name, is_policed=True)


def _segment_hooks(given: PlanInput, *, is_policed: bool) -> Iterator[Row]:
    network, bases = given.network, tunnel_bases(given)
    count = segment_count(network)
    yield from segment_rows(network, count, given.device_base, bases, is_policed=is_policed)
    if is_policed:
        yield from policed_segment_rows(network, count, bases)
    yield from plug_hooks(given, is_policed=is_policed)
    for segment in range(count) if given.native else ():
        yield HookRow(segment, shortcut_name(segment), is_policed)
        if given.sends:
            yield HookRow(segment, shortcut_name(segment), is_leaving=True)


def _without_redirection(rows: Iterable[Row]) -> Iterator[Row]:
    """Leave the hooks, which then only check, and hand on to the bridge."""
    return (row for row in rows if isinstance(row, HookRow))


def _network_rows(given: PlanInput, table: RemoteTable, *, is_shut: bool) -> Iterator[Row]:
    yield from _gateway_rows(given.network)
    if has_tunnel(given.network):
        yield from tunnel_rows(given, table)
    if not is_shut:
        yield from _exit_rows(given)
        yield from router_rows(given)
    if given.network.isolate_subnets:
        yield from _barrier_rows(given.network)


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
