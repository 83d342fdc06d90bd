from __future__ import annotations

import select
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.operations import DeleteRow, PutRow
from overlay.core.dataplane.state import BridgeFdbRow, FdbRow, NeighborRow, SandboxState
from overlay.kernel import netns
from overlay.kernel.sandbox.monitor import NOTIFICATIONS_LOST, SandboxMonitor, UnderlayMonitor
from overlay.model import Ip, Vni, gateway_mac, mac_for, mac_text, parse_ip

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.kernel.conftest import Host, World

pytestmark = pytest.mark.netns

TWO = parse_ip("10.32.0.3")
GATEWAY_MAC = mac_text(gateway_mac(Vni(0x800001), 0))


@pytest.fixture
def plugged(world: World, two_hosts: tuple[Host, Host]) -> Iterator[tuple[Host, SandboxMonitor]]:
    """Return a converged host with a container, and a new monitor."""
    one, two = two_hosts
    world.plug(one, two)
    monitor = one.sandbox.monitor()
    yield one, monitor
    monitor.close()


def readable(monitor: SandboxMonitor | UnderlayMonitor) -> bool:
    """Return whether the event loop would be woken."""
    return bool(select.select([monitor], [], [], 0)[0])


COMMANDS = {
    "flood row": "bridge fdb del 00:00:00:00:00:00 dev vxlan0 dst 192.168.56.12 self",
    "fdb row": "bridge fdb replace 02:18:6c:36:04:93 dev vxlan0 dst 192.168.56.66 self",
    "bridge fdb row": "bridge fdb del 02:18:6c:36:04:93 dev vxlan0 master",
    "neighbour gone": "ip neighbour del 10.32.0.3 dev br0",
    "neighbour loose": "ip neighbour change 10.32.0.3 dev br0 nud stale",
    "neighbour new": "ip neighbour add 10.32.0.77 lladdr 02:00:00:00:00:09 dev br0 nud permanent",
    "address gone": "ip address del 10.32.0.1/16 dev br0",
    "address new": "ip address add 10.99.0.1/24 dev br0",
    "link down": "ip link set vxlan0 down",
    "link gone": "ip link del vxlan0",
    "port MTU": "ip link set p0 mtu 1300",
    "port free": "ip link set p0 nomaster",
    "suppression": "bridge link set dev vxlan0 neigh_suppress off",
    "port learning": "bridge link set dev vxlan0 learning on",
    "snooping": "ip link set br0 type bridge mcast_snooping 1",
    "own MAC gone": f"bridge fdb del {GATEWAY_MAC} dev br0 self",
    "own MAC elsewhere": f"bridge fdb replace {GATEWAY_MAC} dev p0 master dynamic",
    "new port": "ip link add p7 type veth peer p8",
}


@pytest.mark.parametrize("name", COMMANDS)
def test_a_contradiction_is_detected(
    world: World, plugged: tuple[Host, SandboxMonitor], name: str
) -> None:
    """Every deletion, change or addition is a contradiction."""
    host, monitor = plugged
    world.run(host.sandbox.name, *COMMANDS[name].split())

    assert readable(monitor)
    assert monitor.contradictions(host.desired()) != []


def test_repair_is_no_contradiction(world: World, plugged: tuple[Host, SandboxMonitor]) -> None:
    """The changes of a pass towards the desired state are not contradictions."""
    host, monitor = plugged
    world.run(host.sandbox.name, *COMMANDS["neighbour gone"].split())
    assert monitor.contradictions(host.desired()) != []

    assert host.converge() == []
    assert readable(monitor)
    assert monitor.contradictions(host.desired()) == []


def test_a_restored_local_entry_is_no_contradiction(
    world: World, plugged: tuple[Host, SandboxMonitor]
) -> None:
    """The pass that gives a bridge its own MAC back causes no further pass."""
    host, monitor = plugged
    world.run(host.sandbox.name, *COMMANDS["own MAC gone"].split())
    assert monitor.contradictions(host.desired()) != []

    assert host.converge() == []
    assert readable(monitor)
    assert monitor.contradictions(host.desired()) == []


def test_own_changes_are_no_contradiction(plugged: tuple[Host, SandboxMonitor]) -> None:
    """Adding desired rows and deleting others are not contradictions."""
    host, monitor = plugged
    host.remotes.append((parse_ip("10.32.0.4"), host.floods[0]))
    assert host.converge() == []
    assert monitor.contradictions(host.desired()) == []

    host.remotes.pop()
    assert host.converge() == []
    assert monitor.contradictions(host.desired()) == []


def test_attach_and_detach_are_no_contradiction(plugged: tuple[Host, SandboxMonitor]) -> None:
    """A desired port may appear; one that is not desired may disappear."""
    host, monitor = plugged
    host.attach(parse_ip("10.32.0.9"))
    assert monitor.contradictions(host.desired()) == []


def test_traffic_is_no_contradiction(world: World, plugged: tuple[Host, SandboxMonitor]) -> None:
    """Entries that the kernel learns from traffic are ignored."""
    host, monitor = plugged
    name = host.attach(parse_ip("10.32.0.9"))
    assert world.pings(name, "10.32.0.1", count=3) == 3
    assert monitor.contradictions(host.desired()) == []


def test_a_stolen_mac_is_detected(plugged: tuple[Host, SandboxMonitor]) -> None:
    """A remote container's MAC behind a local port is a contradiction."""
    host, monitor = plugged
    mac = mac_for(host.vni, TWO)
    assert BridgeFdbRow("vxlan0", mac) in host.desired().rows
    host.sandbox.apply([DeleteRow(BridgeFdbRow("vxlan0", mac)), PutRow(BridgeFdbRow("p0", mac))])

    assert monitor.contradictions(host.desired()) != []


def test_what_was_read_is_judged_later(world: World, plugged: tuple[Host, SandboxMonitor]) -> None:
    """By what is desired then, and by what was told last."""
    host, monitor = plugged
    world.run(host.sandbox.name, *COMMANDS["neighbour gone"].split())
    monitor.read(host.desired())
    assert not readable(monitor)
    assert monitor.contradictions(host.desired()) != []
    assert monitor.contradictions(host.desired()) == []

    host.converge()
    world.run(host.sandbox.name, *COMMANDS["neighbour gone"].split())
    monitor.read(host.desired())
    assert monitor.is_doubtful
    host.converge()
    assert monitor.contradictions(host.desired()) == []


def test_reading_loses_none(plugged: tuple[Host, SandboxMonitor]) -> None:
    """Rows come and go, more than the buffer holds of; what is there for long is not forgotten."""
    host, monitor = plugged
    mac = mac_for(host.vni, TWO)
    rows = [
        NeighborRow("br0", Ip((0x0A210000 + number).to_bytes(4, "big")), mac)
        for number in range(500)
    ]
    for _ in range(30):
        for operations in ([PutRow(row) for row in rows], [DeleteRow(row) for row in rows]):
            host.sandbox.apply(operations)
            while readable(monitor):
                monitor.read(host.desired())
    assert not monitor.is_doubtful
    host.sandbox.apply([PutRow(row) for row in rows])
    while readable(monitor):
        monitor.read(host.desired())
    found = monitor.contradictions(host.desired())
    assert NOTIFICATIONS_LOST not in found
    assert len(found) == 16


def test_a_large_pass_overflows_no_buffer(plugged: tuple[Host, SandboxMonitor]) -> None:
    """Reading is hardly faster than what a pass changes, and may not have begun."""
    host, monitor = plugged
    mac = mac_for(host.vni, TWO)
    rows = [
        NeighborRow("br0", Ip((0x0A210000 + number).to_bytes(4, "big")), mac)
        for number in range(10_000)
    ]
    host.sandbox.apply([PutRow(row) for row in rows])
    host.sandbox.apply([DeleteRow(row) for row in rows])
    while readable(monitor):
        monitor.read(SandboxState())
    assert not monitor.is_doubtful


def test_so_many_contradictions_are_kept(
    monkeypatch: pytest.MonkeyPatch, plugged: tuple[Host, SandboxMonitor]
) -> None:
    """As if the kernel had dropped them."""
    host, monitor = plugged
    monkeypatch.setattr("overlay.kernel.sandbox.monitor._KEPT_MAX", 8)
    mac = mac_for(host.vni, TWO)
    for count, expected in ((8, 8), (9, 1)):
        ips = [Ip(bytes((10, 33, count, number))) for number in range(count)]
        host.sandbox.apply([PutRow(NeighborRow("br0", ip, mac)) for ip in ips])
        found = monitor.contradictions(host.desired())
        assert len(found) == expected
    assert found == [NOTIFICATIONS_LOST]
    assert monitor.contradictions(host.desired()) == []


def test_lost_notifications_are_reported(plugged: tuple[Host, SandboxMonitor]) -> None:
    """Dropped notifications are reported once, and watching continues."""
    host, monitor = plugged
    addresses = [Ip((0x0A210000 + number).to_bytes(4, "big")) for number in range(20_000)]
    mac = mac_for(host.vni, TWO)
    for _ in range(2):
        host.sandbox.apply([PutRow(NeighborRow("br0", ip, mac)) for ip in addresses])
        host.sandbox.apply([DeleteRow(NeighborRow("br0", ip, mac)) for ip in addresses])

    heard = []
    while readable(monitor):
        heard += monitor.contradictions(host.desired())
    assert NOTIFICATIONS_LOST in heard
    host.sandbox.apply([PutRow(FdbRow("vxlan0", mac, parse_ip("192.168.56.99")))])
    assert monitor.contradictions(host.desired()) != []


def test_underlay_changes(world: World, two_hosts: tuple[Host, Host]) -> None:
    """The monitor notices changes of links, addresses and routes."""
    one, _ = two_hosts
    with netns.inside(world.fd(one.name)):
        monitor = UnderlayMonitor()
    for command in (
        "ip link set eth1 mtu 1400",
        "ip address add 192.168.56.99/24 dev eth1",
        "ip route add 192.168.77.0/24 via 192.168.56.12",
    ):
        world.run(one.name, *command.split())
        assert readable(monitor), command
        monitor.drain()
        assert not readable(monitor)
    monitor.close()
