"""The expected kernel state, computed from the containers that really run.

Owns: the expected state of every sandbox, and tracing a packet through simulated kernels.
Does not: use the planner, the store or any record, as these are compared with it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

from overlay.core.dataplane.link_state import Bridge, Link, Port, Vxlan
from overlay.core.dataplane.operations import row_key
from overlay.core.dataplane.state import (
    AddressRow,
    BridgeFdbRow,
    FdbRow,
    FloodRow,
    NeighborRow,
    Row,
    SandboxState,
)
from overlay.model import Ip, Mac, Network, Vni, gateway_mac, ip_text
from overlay.sim.host.kernel import Container, Kernel

VXLAN_PORT: Final = 4789


@dataclass(frozen=True, slots=True)
class HostTruth:
    """The actual state of one host: its VTEP and containers.

    `claimed`: the addresses that its own false records claim. It sends their frames to no other
    host, so it harms itself; all others still send them to the container.
    """

    vtep: Ip
    containers: tuple[Container, ...]
    claimed: frozenset[Ip] = frozenset()


def expected(
    network: Network, mtu: int, here: HostTruth, others: Iterable[HostTruth]
) -> SandboxState:
    """Return the expected state of the network's sandbox on the host `here`.

    `others` are the other hosts that have a sandbox of the network.
    """
    links: dict[str, Link] = {}
    rows: set[Row] = set()
    for index, subnet in enumerate(network.subnets):
        bridge, vxlan = f"br{index}", f"vxlan{index}"
        vni = Vni(network.vni + index)
        links[bridge] = Bridge(bridge, gateway_mac(network.vni, index), mtu)
        links[vxlan] = Vxlan(vxlan, vni, here.vtep, VXLAN_PORT, mtu, bridge)
        rows.add(AddressRow(bridge, subnet.gateway, subnet.prefix_length))
    for container in here.containers:
        links[container.port] = Port(container.port, mtu, f"br{container.subnet_index}")
    for other in others:
        for index in range(len(network.subnets)):
            rows.add(FloodRow(f"vxlan{index}", other.vtep))
        for container in other.containers:
            endpoint, index = container.endpoint, container.subnet_index
            rows.add(FdbRow(f"vxlan{index}", endpoint.mac, other.vtep))
            rows.add(BridgeFdbRow(f"vxlan{index}", endpoint.mac))
            for ip in endpoint.ips:
                if ip not in here.claimed:
                    rows.add(NeighborRow(f"br{index}", ip, endpoint.mac))
    return SandboxState(links, frozenset(rows))


def trace_packet(
    source: Kernel,
    vni: Vni,
    index: int,
    target: Ip,
    kernel_at: Callable[[Ip], Kernel | None],
) -> Container | str:
    """Trace a packet from a container of subnet `index` to `target`.

    The path is neighbor -> bridge FDB -> VXLAN FDB -> remote VTEP -> its bridge -> port. Returns
    the container that receives it, or a description of where it was lost.
    """
    sandbox = source.sandboxes.get(vni)
    if sandbox is None:
        return "there is no sandbox"
    bridge = f"br{index}"
    for container in source.containers.values():
        if container.endpoint.vni == vni and target in container.endpoint.ips:
            found = source.container_behind(vni, bridge, container.endpoint.mac)
            return found or f"{container.port} is on no {bridge}"
    neighbor = sandbox.rows.get(row_key(NeighborRow(bridge, target, Mac(b""))))
    if not isinstance(neighbor, NeighborRow):
        return f"no neighbor {ip_text(target)} on {bridge}"
    mac = neighbor.mac
    for link in sandbox.links.values():
        if not isinstance(link, Vxlan) or link.master != bridge:
            continue
        if ("bridge-fdb", link.name, mac, b"") not in sandbox.rows:
            continue
        row = sandbox.rows.get(("fdb", link.name, mac, b""))
        if not isinstance(row, FdbRow):
            return f"no FDB row for {mac.hex(':')} on {link.name}"
        return _arrive(kernel_at(row.vtep), vni, link, row, target)
    return f"no port of {bridge} has {mac.hex(':')}"


def _arrive(
    there: Kernel | None, vni: Vni, sent_by: Vxlan, row: FdbRow, target: Ip
) -> Container | str:
    if there is None or vni not in there.sandboxes:
        return f"no host with VNI {sent_by.vni} at {ip_text(row.vtep)}"
    for link in there.sandboxes[vni].links.values():
        if not isinstance(link, Vxlan) or (link.vni, link.port) != (sent_by.vni, sent_by.port):
            continue
        if link.local != row.vtep:
            return f"{link.name} at {ip_text(row.vtep)} listens on {ip_text(link.local)}"
        container = there.container_behind(vni, link.master, row.mac)
        if container is None:
            return f"no port for {row.mac.hex(':')} at {ip_text(row.vtep)}"
        if target not in container.endpoint.ips:
            return f"{container.endpoint.name} at {ip_text(row.vtep)} is not {ip_text(target)}"
        return container
    return f"no VXLAN device of VNI {sent_by.vni} at {ip_text(row.vtep)}"
