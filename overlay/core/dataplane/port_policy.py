"""What the ports of a sandbox should be allowed, and which frames may be spared the bridge.

Pure additions to the plan. Port security says from which MAC and addresses a container may send
at all. On the fast path a local container's frames may leave by the fast path from its own
MAC and addresses alone, and reach every other local container; all else goes to the VTEP, but
for what is the bridge's own (gateways, this host's end on the network). How it is done is the
kernel layer's business (`kernel.bpf`).
"""

from __future__ import annotations

from collections.abc import Iterator

from overlay.core.dataplane.network_drivers import has_tunnel
from overlay.core.dataplane.planner import (
    LocalPort,
    PlanInput,
    host_ports,
    planned_links,
    planned_rows,
    segment_count,
    segment_of,
)
from overlay.core.dataplane.rate_limits import rate_row, rates_of
from overlay.core.dataplane.state import GuardRow, HookRow, Row, SandboxState, SourceRow, TargetRow
from overlay.model import Endpoint, Mac, Network, gateway_mac, has_port_security_off, is_host

DEFAULT_TARGET_MAC = Mac(bytes(6))


def plan_sandbox(given: PlanInput, *, fast_path: bool, guarded: bool = False) -> SandboxState:
    """Return the plan of a sandbox with its ports' rates, and with the rows of the fast path and
    of port security if it has them."""
    links = planned_links(given)

    def rows() -> Iterator[Row]:
        yield from planned_rows(given)
        if fast_path:
            yield from _segment_rows(given.network)
        by_id = {endpoint.endpoint_id: endpoint for endpoint in given.locals}
        for port in (*given.ports, *host_ports(given)):
            endpoint = by_id.get(port.endpoint_id)
            if endpoint is None or port.name not in links:
                continue
            if fast_path:
                yield from port_rows(given.network, port, endpoint)
            if guarded:
                yield guard_row(given.network, port.name, endpoint)
            rate = rate_row(port.name, endpoint)
            if rate is not None:
                yield rate

    return SandboxState(links, frozenset(rows()))


def guard_row(network: Network, port_name: str, endpoint: Endpoint) -> GuardRow:
    """Return what may be sent from an endpoint's port."""
    if has_port_security_off(network, endpoint):
        return GuardRow(Mac(b""), (), port_name)
    return GuardRow(endpoint.mac, tuple(sorted(endpoint.ips)), port_name)


def _segment_rows(network: Network) -> Iterator[Row]:
    for segment in range(segment_count(network)):
        if has_tunnel(network):
            yield HookRow(segment, f"vxlan{segment}")
            yield TargetRow(DEFAULT_TARGET_MAC, segment, f"vxlan{segment}")
        yield TargetRow(gateway_mac(network.vni, segment), segment, f"br{segment}")


def port_rows(network: Network, port: LocalPort, endpoint: Endpoint) -> Iterator[Row]:
    """Return what the fast path knows of one local endpoint."""
    segment = segment_of(network, port.subnet_index)
    if is_host(endpoint):
        yield TargetRow(endpoint.mac, segment, f"br{segment}")
        return
    rates = rates_of(endpoint.labels)
    # A limited direction goes by the bridge: the fast path would pass the port's queues by.
    yield TargetRow(endpoint.mac, segment, f"br{segment}" if rates.in_bits else port.name)
    if rates.out_bits:
        return
    yield HookRow(segment, port.name)
    for ip in endpoint.ips:
        yield SourceRow(ip, endpoint.mac, port.name)
