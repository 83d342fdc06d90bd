"""The links of a sandbox: bridges, VXLAN devices, ports, and links to other sandboxes."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import replace

from overlay.core.dataplane.controls.port_controls import has_priorities
from overlay.core.dataplane.controls.shared_rate import shared_rate_of
from overlay.core.dataplane.link_state import SHORTCUT_PREFIX, Bridge, Link, Port, Shortcut, Vxlan
from overlay.core.dataplane.network_drivers import has_tunnel
from overlay.core.dataplane.planning.inputs import LocalPort, PlanInput
from overlay.core.dataplane.planning.plug import plug_links
from overlay.core.dataplane.planning.router_rows import router_links
from overlay.core.dataplane.planning.segments import (
    bridge_name,
    has_subnet,
    host_port_name,
    segment_count,
    segment_of,
)
from overlay.core.dataplane.tunnel_devices import other_base
from overlay.core.vlan.vlans import NO_VLANS, port_mtu, vlans_of
from overlay.model import Vni, gateway_mac, is_host


def links(
    given: PlanInput,
    *,
    is_shut: bool,
    closed: Collection[bytes] = (),
    inherits_dscp: bool = False,
) -> Iterator[Link]:
    """Return the links; without policing (`is_shut`) the ports are on no bridge.

    Nor are those of the endpoints `closed`, or of a subnet that the network lacks.
    `inherits_dscp`: outer headers have the DSCP of the packets within.
    """
    network = given.network
    vlans = {each.endpoint_id: vlans_of(each) for each in given.locals if each.labels}
    for segment in range(segment_count(network)):
        bridge = f"br{segment}"
        yield Bridge(bridge, gateway_mac(network.vni, segment), given.mtu)
        if not has_tunnel(network):
            continue
        for base, local in zip(tunnel_bases(given), (given.local, given.receiving), strict=False):
            name, vni = f"{base}{segment}", Vni(network.vni + segment)
            ends = (local or given.local, given.port)
            yield Vxlan(name, vni, *ends, given.mtu, bridge, inherits_dscp=inherits_dscp)
        if given.native:
            yield Shortcut(shortcut_name(segment), given.mtu)
    for port in (*given.ports, *host_ports(given)):
        is_closed = is_shut or port.endpoint_id in closed
        is_closed = is_closed or not has_subnet(network, port.subnet_index)
        mtu = port_mtu(given.mtu, vlans.get(port.endpoint_id, NO_VLANS))
        yield Port(port.name, mtu, "" if is_closed else bridge_name(network, port.subnet_index))
    yield from plug_links(given, is_shut=is_shut)
    yield from router_links(given)


def natively(given: PlanInput, *, allowed: bool) -> PlanInput:
    """Return the input with the native path, if that is allowed and possible.

    Not for frames that must come by the tunnels, or may: the way that they take decides who may
    send them.
    """
    is_possible = has_tunnel(given.network) and given.is_clear and given.receiving is None
    prioritized = has_priorities(given.network, given.locals)
    needs_device = prioritized or bool(shared_rate_of(given.network))
    return replace(given, native=allowed and is_possible, needs_device=needs_device)


def shortcut_name(segment: int) -> str:
    """Return the name of the sandbox's end of a segment's shortcut."""
    return f"{SHORTCUT_PREFIX}{segment}"


def tunnel_bases(given: PlanInput) -> tuple[str, ...]:
    """Return what the names of the VXLAN devices begin with, those that send first."""
    if given.receiving is None:
        return (given.device_base,)
    return (given.device_base, other_base(given.device_base))


def sending_devices(given: PlanInput) -> Iterator[str]:
    """Return the names of the VXLAN devices that send, one per segment."""
    return (f"{given.device_base}{number}" for number in range(segment_count(given.network)))


def host_ports(given: PlanInput) -> Iterator[LocalPort]:
    """Return the ports of this host's endpoints, one per segment at most."""
    for endpoint in given.locals:
        if is_host(endpoint):
            for index, subnet in enumerate(given.network.subnets):
                if endpoint.ips[0] in subnet:
                    segment = segment_of(given.network, index)
                    yield LocalPort(host_port_name(segment), index, endpoint.endpoint_id)
