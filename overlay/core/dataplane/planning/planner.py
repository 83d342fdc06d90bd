"""The planner: the desired state of a network's sandbox from records.

Owns: a pure function of plain inputs. Does not: know the store, liveness or the kernel; its
caller decides whose records count (a dead agent's still do, because its data plane forwards).

A network of the driver `bridge` (`core.dataplane.network_drivers`) has no VXLAN devices, and one
that is being switched to encryption or back has two for a while (`core.dataplane.tunnel_devices`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from overlay.core.dataplane.controls.shared_rate import shared_rate_rows
from overlay.core.dataplane.network_drivers import has_tunnel
from overlay.core.dataplane.planning.inputs import PlanInput
from overlay.core.dataplane.planning.isolation import isolates_any, isolation_rows
from overlay.core.dataplane.planning.links import (
    links,
    natively,
    sending_devices,
    shortcut_name,
    tunnel_bases,
)
from overlay.core.dataplane.planning.planned_rows import PlannedRows
from overlay.core.dataplane.planning.plug import plug_hooks
from overlay.core.dataplane.planning.ports import PortPlanner, PortRows, priority_rows
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
from overlay.core.dataplane.planning.vlan_ports import shut_endpoints
from overlay.core.dataplane.port_security import (
    announces_addresses,
    is_announcing,
    policed_segment_rows,
    segment_rows,
)
from overlay.core.dataplane.state import (
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
from overlay.model import Ip, Network, is_host


class Abilities(NamedTuple):
    """The abilities of a sandbox: the arguments of `plan_sandbox` beside its input."""

    fast_path: bool = False
    native: bool = False
    guarded: bool = False
    intercepting: bool = False
    policing: bool = True


class PlanBasis(NamedTuple):
    """Facts that a plan was made from, all but remote endpoints; it holds while these are equal."""

    given: PlanInput
    abilities: Abilities


def basis_of(given: PlanInput, abilities: Abilities) -> PlanBasis | None:
    """Return what a plan with a table depends on, beside the table.

    None if more than the table's rows follows from remote endpoints.
    """
    if isolates_any(given) or given.fabric.macs:
        return None
    return PlanBasis(replace(given, remotes=(), owner_of=None), abilities)


def plan_sandbox(
    given: PlanInput,
    table: RemoteTable | None = None,
    *,
    fast_path: bool = False,
    native: bool = False,
    guarded: bool = False,
    intercepting: bool = False,
    policing: bool = True,
    kept: PortRows | None = None,
) -> SandboxState:
    """Return the desired state of a sandbox; equal inputs give equal states.

    With a `table` of the remote endpoints, the state follows it: it is a value until the table is
    updated. Without one they are planned anew.

    `fast_path` adds the rows of the eBPF fast path, `native` with it what goes past the VXLAN
    device, `guarded` the rows of port security and other controls, `intercepting` those that bring
    queries for other resolvers to this node's DNS server. Without `policing`, the ports of a
    network that has policies are on no bridge, and without `guarded`, isolated ports are not. Ports
    in VLANs need both. Rows of ports that the plan before had are `kept` from it.

    An endpoint with a gateway's MAC gets no rows, wherever it is: a local one's port stays closed.
    """
    is_policed = given.policy is not None and policing
    is_shut = given.policy is not None and not policing
    announces = policing and _announces(given)
    marks = [*priority_rows(given)] if policing else []
    closed = frozenset(shut_endpoints(given, guarded=guarded, programs=policing))
    given = natively(given, allowed=native and fast_path and not is_shut)
    remote = table_of(given) if table is None else table
    made = links(given, is_shut=is_shut, closed=closed, inherits_dscp=bool(marks))
    planned = {link.name: link for link in made}
    ports = PortPlanner(given, fast_path=fast_path, guarded=guarded, policing=policing)

    def rows() -> Iterator[Row]:
        yield from _network_rows(given, remote, is_shut=is_shut)
        if guarded:
            yield BoundaryRow()
            yield from isolation_rows(given, remote)
        if intercepting:
            yield from _intercept_rows(given.network)
        yield from marks
        yield from shared_rate_rows(given.network, sending_devices(given))
        if given.policy is not None and policing:
            yield from given.policy.rows
        if fast_path or is_policed or announces:
            hooks = _segment_hooks(given, is_policed=is_policed)
            yield from hooks if fast_path else _without_redirection(hooks, announces=announces)
        if is_policed:
            yield from router_hooks(given)
        if not is_shut:
            yield from ports.rows(planned, PortRows() if kept is None else kept)

    if table is None:
        return SandboxState(planned, frozenset((*rows(), *remote.rows)))
    return SandboxState(planned, PlannedRows(frozenset(rows()), table.rows))


def _announces(given: PlanInput) -> bool:
    """Return whether announcements are to reach other hosts without a fast path, too."""
    network = given.network
    return bool(given.plugged) or any(announces_addresses(network, each) for each in given.locals)


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


def _without_redirection(rows: Iterable[Row], *, announces: bool) -> Iterator[Row]:
    """Leave the hooks, which then only check, announce, and hand on to the bridge."""
    return (row for row in rows if isinstance(row, HookRow) or (announces and is_announcing(row)))


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
