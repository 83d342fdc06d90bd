"""What the fast path of a sandbox should know: which frames may be spared the bridge.

A pure addition to the plan. A local container's frames may leave by the fast path from its own
MAC and addresses alone, and reach every other local container; all else goes to the VTEP, but
for what is the bridge's own (gateways, this host's end on the network). How it is done is the
kernel layer's business (`kernel.bpf`).
"""

from __future__ import annotations

from collections.abc import Iterator

from overlay.core.plan import PlanInput, PlannedPort, plan, segment_count, segment_of
from overlay.core.state import HookRow, Row, SandboxState, SourceRow, TargetRow
from overlay.model import Endpoint, Mac, Network, gateway_mac, is_host

ALL_OTHERS = Mac(bytes(6))


def plan_sandbox(given: PlanInput, *, fast_path: bool) -> SandboxState:
    """Return the plan of a sandbox, with the fast path's rows if it has one."""
    planned = plan(given)
    if not fast_path:
        return planned
    by_id = {endpoint.endpoint_id: endpoint for endpoint in given.locals}
    rows: set[Row] = set(_segment_rows(given.network))
    for port in given.ports:
        endpoint = by_id.get(port.endpoint_id)
        if endpoint is not None and port.name in planned.links:
            rows.update(port_rows(given.network, port, endpoint))
    return SandboxState(planned.links, planned.rows | rows)


def _segment_rows(network: Network) -> Iterator[Row]:
    for segment in range(segment_count(network)):
        yield HookRow(segment, f"vxlan{segment}")
        yield TargetRow(ALL_OTHERS, segment, f"vxlan{segment}")
        yield TargetRow(gateway_mac(network.vni, segment), segment, f"br{segment}")


def port_rows(network: Network, port: PlannedPort, endpoint: Endpoint) -> Iterator[Row]:
    """Return what the fast path knows of one local endpoint."""
    segment = segment_of(network, port.subnet_index)
    if is_host(endpoint):
        yield TargetRow(endpoint.mac, segment, f"br{segment}")
        return
    yield TargetRow(endpoint.mac, segment, port.name)
    yield HookRow(segment, port.name)
    for ip in endpoint.ips:
        yield SourceRow(ip, endpoint.mac, port.name)
