from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.operations import DeleteRow, PutRow
from overlay.core.dataplane.state import BridgeFdbRow, UnexpectedRow
from overlay.model import Vni, gateway_mac, mac_text, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import Host, World

pytestmark = pytest.mark.netns

ONE = parse_ip("10.32.0.2")
TWO = parse_ip("10.32.0.3")
ZERO = "00:00:00:00:00:00"
OTHER = "02:00:00:00:00:09"
GATEWAY_MAC = mac_text(gateway_mac(Vni(0x800001), 0))
# name: command inside the sandbox of the first host
SABOTAGE = {
    "flood row": f"bridge fdb del {ZERO} dev vxlan0 dst 192.168.56.12 self",
    "neighbour": "ip neighbour del 10.32.0.3 dev br0",
    "neighbour MAC": f"ip neighbour replace 10.32.0.3 lladdr {OTHER} dev br0 nud permanent",
    "gateway": "ip address flush dev br0",
    "foreign address": "ip address add 10.99.0.1/24 dev br0",
    "bridge down": "ip link set br0 down",
    "bridge MTU": "ip link set br0 mtu 1400",
    "bridge MAC": "ip link set br0 address 02:00:00:00:00:07",
    "snooping": "ip link set br0 type bridge mcast_snooping 1",
    "stp": "ip link set br0 type bridge stp_state 1",
    "vtep down": "ip link set vxlan0 down",
    "vtep MTU": "ip link set vxlan0 mtu 1300",
    "vtep gone": "ip link del vxlan0",
    "vtep free": "ip link set vxlan0 nomaster",
    "vtep learns": "ip link set vxlan0 type vxlan learning",
    "port learns": "bridge link set dev vxlan0 learning on",
    "no suppression": "bridge link set dev vxlan0 neigh_suppress off",
    "isolation": "bridge link set dev p0 isolated on",
    "no flooding": "bridge link set dev vxlan0 flood off",
    "port down": "ip link set p0 down",
    "port free": "ip link set p0 nomaster",
    "port MTU": "ip link set p0 mtu 1200",
    "port state": "bridge link set dev p0 state disabled",
    "vtep state": "bridge link set dev vxlan0 state disabled",
    "link-local": "ip link set br0 addrgenmode eui64",
    "other VNI": f"bridge fdb append {ZERO} dev vxlan0 dst 192.168.56.12 vni 77 self",
    "more flooding": f"bridge fdb append {ZERO} dev vxlan0 dst 192.168.56.77 self",
    "local MAC on another port": f"bridge fdb add {OTHER} dev p0 master static",
    "local MAC swallowed": f"bridge fdb add {OTHER} dev p0 master permanent",
    "remote MAC on a port": "bridge fdb replace 02:18:6c:36:04:93 dev p0 master static",
    "bridge MAC not local": f"bridge fdb del {GATEWAY_MAC} dev br0 self",
    "bridge MAC on VTEP": f"bridge fdb replace {GATEWAY_MAC} dev vxlan0 master extern_learn",
    "bridge MAC on a port": f"bridge fdb replace {GATEWAY_MAC} dev p0 master static",
    "foreign local MAC": f"bridge fdb add {OTHER} dev br0 self permanent",
    "swallowed": "bridge fdb replace 02:00:00:00:00:05 dev vxlan0 master permanent",
}


@pytest.mark.parametrize("name", SABOTAGE)
def test_tampering_is_detected_and_repaired(
    world: World, two_hosts: tuple[Host, Host], name: str
) -> None:
    """Every change by others is read as a difference and repaired."""
    one, two = two_hosts
    first, _ = world.plug(one, two)
    world.run(one.sandbox.name, *SABOTAGE[name].split())

    assert one.differences() != []
    for _ in range(3):  # recreating a device deletes its rows, so a further pass is needed
        assert one.converge() == []
    assert one.differences() == []
    assert world.pings(first, "10.32.0.3") == 1
    assert world.pings(first, "10.32.0.1") == 1


def test_a_removed_row_for_the_gateways_mac_leaves_no_damage(
    world: World, two_hosts: tuple[Host, Host]
) -> None:
    """A row takes the place of the kernel's own entry; removing it does not bring that back."""
    one, two = two_hosts
    first, _ = world.plug(one, two)
    row = BridgeFdbRow("vxlan0", gateway_mac(one.vni, 0))
    assert one.sandbox.apply([PutRow(row), DeleteRow(row)]) == []
    seen = one.sandbox.read()

    assert seen.links["br0"] != one.desired().links["br0"]
    assert one.differences() == ["ip link set br0 # restores local FDB entry"]
    assert one.converge() == []
    assert one.differences() == []
    assert f"{GATEWAY_MAC} dev br0 master" in world.run(one.sandbox.name, "bridge", "fdb", "show")
    assert world.pings(first, "10.32.0.1") == 1


def test_a_restored_local_entry_follows_the_bridges_mac(
    world: World, two_hosts: tuple[Host, Host]
) -> None:
    """Not even a bridge whose MAC is changed afterwards keeps a surplus entry."""
    one, two = two_hosts
    first, _ = world.plug(one, two)
    world.run(one.sandbox.name, *SABOTAGE["bridge MAC not local"].split())
    assert one.converge() == []
    world.run(one.sandbox.name, *SABOTAGE["bridge MAC"].split())

    for _ in range(3):
        assert one.converge() == []
    assert one.differences() == []
    assert world.pings(first, "10.32.0.1") == 1


def test_vtep_with_socket_in_sandbox_is_replaced(
    world: World, two_hosts: tuple[Host, Host]
) -> None:
    """A VXLAN device created inside the sandbox, by someone else, is replaced."""
    one, two = two_hosts
    first, _ = world.plug(one, two)
    sandbox = one.sandbox.name
    world.run(sandbox, "ip", "link", "del", "vxlan0")
    vtep = ("type", "vxlan", "id", str(one.vni), "local", "192.168.56.11", "dstport", "4789")
    world.run(sandbox, "ip", "link", "add", "vxlan0", "mtu", "1450", *vtep, "nolearning")

    for _ in range(2):
        assert one.converge() == []
    assert one.differences() == []
    assert world.pings(first, "10.32.0.3") == 1


def test_foreign_devices_are_untouched(world: World, two_hosts: tuple[Host, Host]) -> None:
    """Devices and rows of others on the host are kept."""
    one, _ = two_hosts
    world.run(one.name, "ip", "link", "add", "docker0", "type", "bridge")
    world.run(one.sandbox.name, "ip", "link", "add", "tap0", "type", "ifb")
    before = world.run(one.name, "ip", "-o", "link", "show", "docker0")

    assert one.converge() == []
    assert one.differences() == []
    assert world.run(one.name, "ip", "-o", "link", "show", "docker0") == before
    assert "tap0" in world.run(one.sandbox.name, "ip", "-o", "link")


def test_unexpected_rows_can_only_be_deleted(world: World, two_hosts: tuple[Host, Host]) -> None:
    """A foreign permanent row is read as unexpected, and can be deleted."""
    one, _ = two_hosts
    world.run(one.sandbox.name, *SABOTAGE["other VNI"].split())
    strange = [row for row in one.sandbox.read().rows if isinstance(row, UnexpectedRow)]
    assert len(strange) == 1

    assert one.sandbox.apply([DeleteRow(strange[0])]) == []
    assert one.sandbox.read() == one.desired()
