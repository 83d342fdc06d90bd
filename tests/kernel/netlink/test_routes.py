from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.link_state import Bridge, Link, Port, Vxlan
from overlay.core.dataplane.state import (
    AddressRow,
    BarrierRow,
    BridgeFdbRow,
    FdbRow,
    FloodRow,
    NeighborRow,
    RouteRow,
    Row,
    SandboxState,
)
from overlay.kernel import netns
from overlay.kernel.sandbox import veth
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import Ip, Vni, gateway_mac, mac_for, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import Host, World

pytestmark = pytest.mark.netns

SEGMENTS = (("10.32.0.1", "10.32.0.2"), ("10.33.0.1", "10.33.0.2"))


def two_segments(host: Host, other: Host, local: int, ports: tuple[str, ...]) -> SandboxState:
    """Return a sandbox with two subnets.

    The container of segment `local` is on this host.
    """
    links: dict[str, Link] = {}
    rows: set[Row] = set()
    for number, (gateway, address) in enumerate(SEGMENTS):
        bridge, vtep, vni = f"br{number}", f"vxlan{number}", Vni(host.vni + number)
        links[bridge] = Bridge(bridge, gateway_mac(host.vni, number), host.mtu)
        links[vtep] = Vxlan(vtep, vni, host.underlay, 4789, host.mtu, bridge)
        rows |= {AddressRow(bridge, parse_ip(gateway), 16), FloodRow(vtep, other.underlay)}
        if number != local:
            mac = mac_for(host.vni, parse_ip(address))
            rows |= {
                FdbRow(vtep, mac, other.underlay),
                BridgeFdbRow(vtep, mac),
                NeighborRow(bridge, parse_ip(address), mac),
            }
    links |= {name: Port(name, host.mtu, f"br{local}") for name in ports}
    return SandboxState(links, frozenset(rows))


def test_subnets_of_a_network_are_routed(world: World) -> None:
    """A container reaches one in another subnet with the first packet."""
    hosts = world.host("192.168.56.11"), world.host("192.168.56.12")
    world.pair(*hosts)
    names = []
    for local, (host, other) in enumerate((hosts, hosts[::-1])):
        state = two_segments(host, other, local, ())
        assert host.sandbox.apply(diff(state, host.sandbox.read(), prune=True)) == []
        gateway, address = SEGMENTS[local]
        names.append(world.namespace(f"c{local}"))
        veth.attach_interface(
            host.sandbox,
            port_name="p0",
            bridge=f"br{local}",
            netns_fd=world.fd(names[-1]),
            ifname=None,
            mac=mac_for(host.vni, parse_ip(address)),
            addresses=[(parse_ip(address), 16)],
            mtu=host.mtu,
            gateway=parse_ip(gateway),
        )
        assert host.sandbox.read() == two_segments(host, other, local, ("p0",))

    assert world.pings(names[0], SEGMENTS[1][1]) == 1
    assert world.pings(names[1], SEGMENTS[0][1], count=3) == 3


def test_networks_are_isolated(world: World, two_hosts: tuple[Host, Host]) -> None:
    """Two networks with the same subnet on the same hosts share nothing."""
    one, two = two_hosts
    world.plug(one, two)
    with netns.inside(world.fd(one.name)):
        other = Sandbox.open(world.claim("other"), create=True)
    vni = Vni(one.vni + 16)
    state = SandboxState(
        {
            "br0": Bridge("br0", gateway_mac(vni, 0), 1450),
            "vxlan0": Vxlan("vxlan0", vni, one.underlay, 4789, 1450, "br0"),
        },
        frozenset({FloodRow("vxlan0", two.underlay), AddressRow("br0", one.gateway, 16)}),
    )
    assert other.apply(diff(state, other.read(), prune=True)) == []
    stranger = world.namespace("stranger")
    veth.attach_interface(
        other,
        port_name="p0",
        bridge="br0",
        netns_fd=world.fd(stranger),
        ifname=None,
        mac=mac_for(vni, parse_ip("10.32.0.9")),
        addresses=[(parse_ip("10.32.0.9"), 16)],
        mtu=1450,
        gateway=None,
    )
    other.close()

    assert world.pings(stranger, "10.32.0.1") == 1
    assert world.pings(stranger, "10.32.0.2") == 0
    assert world.pings(stranger, "10.32.0.3") == 0


def test_routes_and_barriers_are_read_and_repaired(world: World) -> None:
    """Routes and barrier rules are read exactly, and restored."""
    host, other = world.host("192.168.56.11"), world.host("192.168.56.12")
    world.pair(host, other)
    plain = two_segments(host, other, 0, ())
    extra: frozenset[Row] = frozenset(
        {
            RouteRow("br0", Ip(bytes(4)), 0, parse_ip("10.32.0.9")),
            RouteRow("br1", parse_ip("198.51.100.0"), 24, parse_ip("10.33.0.9")),
            BarrierRow("br0", 16, parse_ip("10.33.0.0")),
            BarrierRow("br1", 16, parse_ip("10.32.0.0")),
        }
    )
    wanted = SandboxState(plain.links, plain.rows | extra)
    assert host.sandbox.apply(diff(wanted, host.sandbox.read(), prune=True)) == []
    assert host.sandbox.read() == wanted

    monitor = host.sandbox.monitor()
    for command in ("route del default", "rule del iif br0 to 10.33.0.0/16 prohibit"):
        world.run(host.sandbox.name, "ip", *command.split())
    world.run(host.sandbox.name, "ip", "route", "add", "203.0.113.0/24", "via", "10.32.0.7")
    told = monitor.contradictions(wanted)
    monitor.close()
    assert len(told) == 3, told
    assert len(diff(wanted, host.sandbox.read(), prune=True)) == 3

    assert host.sandbox.apply(diff(wanted, host.sandbox.read(), prune=True)) == []
    assert host.sandbox.read() == wanted
    assert host.sandbox.apply(diff(plain, host.sandbox.read(), prune=True)) == []
    assert host.sandbox.read() == plain
