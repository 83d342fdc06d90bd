from __future__ import annotations

import errno
import os
import re
import socket
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.link_state import Port, Vxlan
from overlay.core.dataplane.operations import ChangeLink, DeleteRow, PutLink, PutRow
from overlay.core.dataplane.state import AddressRow, FdbRow, FloodRow, NeighborRow, SandboxState
from overlay.errors import NotFoundError
from overlay.kernel import netns
from overlay.kernel.sandbox import kernel_support
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import Mac, Vni, mac_for, parse_ip

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.conftest import Capture, Host, World

pytestmark = pytest.mark.netns

ONE = parse_ip("10.32.0.2")
TWO = parse_ip("10.32.0.3")


def test_empty(world: World) -> None:
    """A new sandbox has the empty state."""
    assert world.host().sandbox.read() == SandboxState()


def test_second_pass_does_nothing(world: World, two_hosts: tuple[Host, Host]) -> None:
    """After one pass the state read is the desired state."""
    one, two = two_hosts
    world.plug(one, two)

    assert one.differences() == []
    assert one.sandbox.read() == one.desired()


def test_first_ping_is_answered(world: World, two_hosts: tuple[Host, Host]) -> None:
    """The very first packet between containers on two hosts arrives."""
    one, two = two_hosts
    first, _ = world.plug(one, two)

    assert world.pings(first, "10.32.0.3") == 1


def test_first_ping_by_flooding_alone(world: World, two_hosts: tuple[Host, Host]) -> None:
    """With only flood rows for the other container, the packet arrives."""
    one, two = two_hosts
    first, _ = one.attach(ONE), two.attach(TWO)

    assert world.pings(first, "10.32.0.3") == 1


def test_frames_are_vxlan_of_the_network_without_arp(
    world: World, two_hosts: tuple[Host, Host], capture: Callable[[str, str], Capture]
) -> None:
    """The underlay carries only VXLAN, and no ARP for known containers."""
    one, two = two_hosts
    first, _ = world.plug(one, two)
    underlay = capture(one.name, "eth1")

    assert world.pings(first, "10.32.0.3", count=3) == 3
    seen = underlay.inner()
    assert {vni for vni, _ in seen} == {one.vni}
    assert [frame for _, frame in seen if frame[12:14] == b"\x08\x06"] == []


def test_gateway_is_answered_locally(
    world: World, two_hosts: tuple[Host, Host], capture: Callable[[str, str], Capture]
) -> None:
    """The gateway replies on each host itself.

    Nothing of that crosses the underlay.
    """
    one, two = two_hosts
    first, second = world.plug(one, two)
    underlay = capture(one.name, "eth1")

    assert world.pings(first, "10.32.0.1") == 1
    assert world.pings(second, "10.32.0.1") == 1
    assert underlay.inner() == []


def test_broadcast_reaches_other_hosts(
    world: World, two_hosts: tuple[Host, Host], capture: Callable[[str, str], Capture]
) -> None:
    """A broadcast from one container arrives at containers on the other host."""
    one, two = two_hosts
    first, second = world.plug(one, two)
    arriving = capture(second, "eth0")

    world.pings(first, "255.255.255.255", "-b", "-I", "eth0")
    assert any(frame[:6] == b"\xff" * 6 and frame[23] == 1 for frame in arriving.frames())


def test_full_size_packets_pass(world: World, two_hosts: tuple[Host, Host]) -> None:
    """A packet of the overlay's MTU crosses the underlay unfragmented."""
    one, two = two_hosts
    first, _ = world.plug(one, two)

    assert world.pings(first, "10.32.0.3", "-M", "do", "-s", str(1450 - 28)) == 1


def test_idle_sandbox_is_silent(
    world: World, two_hosts: tuple[Host, Host], capture: Callable[[str, str], Capture]
) -> None:
    """The interfaces send nothing on their own."""
    one, two = two_hosts
    underlay = capture(one.name, "eth1")
    first, _ = world.plug(one, two)

    world.pings(first, "10.32.0.3", count=50)
    chatter = [frame for _, frame in underlay.inner() if frame[12:14] == b"\x86\xdd"]
    assert chatter == []


def test_adopted_by_a_new_process(world: World, two_hosts: tuple[Host, Host]) -> None:
    """A sandbox that is opened again is unchanged, and still forwards."""
    one, two = two_hosts
    first, _ = world.plug(one, two)
    one.sandbox.close()
    assert world.pings(first, "10.32.0.3") == 1

    with netns.inside(world.fd(one.name)):
        one.sandbox = Sandbox.open(one.sandbox.name, create=True)
    assert one.differences() == []


def test_open_without_create(world: World) -> None:
    """Opening a missing sandbox raises NotFoundError and creates nothing."""
    name = world.claim("none")
    with pytest.raises(NotFoundError):
        Sandbox.open(name, create=False)
    assert name not in netns.names()


def test_destroy_removes_everything(world: World, two_hosts: tuple[Host, Host]) -> None:
    """Destroying a sandbox frees its name and VNI, and deletes veth pairs."""
    one, two = two_hosts
    first, _ = world.plug(one, two)
    one.sandbox.destroy()

    assert one.sandbox.name not in netns.names()
    assert "eth0" not in world.run(first, "ip", "-o", "link")
    with netns.inside(world.fd(one.name)):
        assert kernel_support.vni_holders() == []


def test_lost_name_is_restored(world: World, two_hosts: tuple[Host, Host]) -> None:
    """After `ip netns del` a sandbox still forwards, and can be renamed."""
    one, two = two_hosts
    first, _ = world.plug(one, two)
    world.run(one.name, "ip", "netns", "del", one.sandbox.name)
    assert not one.sandbox.named()
    assert world.pings(first, "10.32.0.3") == 1

    one.sandbox.restore_name()
    assert one.sandbox.named()
    assert one.differences() == []


def test_address_changes_are_in_place(world: World, two_hosts: tuple[Host, Host]) -> None:
    """A new underlay address changes the VTEP in place: its rows stay."""
    one, two = two_hosts
    world.plug(one, two)
    one.underlay = parse_ip("192.168.56.21")
    operations = diff(one.desired(), one.sandbox.read(), prune=True)

    assert [type(operation) for operation in operations] == [ChangeLink]
    assert one.converge() == []
    assert one.differences() == []


def test_moved_container_follows(world: World, two_hosts: tuple[Host, Host]) -> None:
    """A container's new host replaces the old one in every row."""
    one, two = two_hosts
    world.plug(one, two)
    one.remotes = [(TWO, parse_ip("192.168.56.13"))]

    assert one.converge() == []
    assert one.differences() == []


def test_a_replaced_neighbor_survives_deletion_of_the_old(two_hosts: tuple[Host, Host]) -> None:
    """Putting a row and deleting the old row of its key leaves the new row."""
    one, _ = two_hosts
    old, new = Mac(b"\2\0\0\0\0\1"), Mac(b"\2\0\0\0\0\2")
    one.sandbox.apply([PutRow(NeighborRow("br0", ONE, old))])
    one.sandbox.apply(
        [PutRow(NeighborRow("br0", ONE, new)), DeleteRow(NeighborRow("br0", ONE, old))]
    )

    rows = one.sandbox.read().rows
    assert NeighborRow("br0", ONE, new) in rows
    assert NeighborRow("br0", ONE, old) not in rows


def test_deleting_missing_items_succeeds(two_hosts: tuple[Host, Host]) -> None:
    """Deleting rows and links that do not exist is not a failure."""
    one, _ = two_hosts
    mac = mac_for(one.vni, ONE)

    assert (
        one.sandbox.apply(
            [
                DeleteRow(FdbRow("vxlan0", mac, ONE)),
                DeleteRow(NeighborRow("br0", ONE, mac)),
                DeleteRow(FloodRow("vxlan0", ONE)),
                DeleteRow(AddressRow("br0", ONE, 16)),
                DeleteRow(FdbRow("vxlan7", mac, ONE)),
            ]
        )
        == []
    )


def test_failures_name_their_operation(two_hosts: tuple[Host, Host]) -> None:
    """A refused operation is returned with the kernel's reason.

    The others are applied.
    """
    one, _ = two_hosts
    good = PutRow(FdbRow("vxlan0", mac_for(one.vni, ONE), parse_ip("192.168.56.9")))
    wrong_family = PutRow(FloodRow("vxlan0", parse_ip("fd00::1")))
    no_link = PutRow(FloodRow("vxlan9", parse_ip("192.168.56.9")))
    no_port = PutLink(Port("p9", 1450, "br0"))

    failures = one.sandbox.apply([no_port, wrong_family, no_link, good])
    assert {failure.operation for failure in failures} == {no_port, wrong_family, no_link}
    assert all(failure.reason for failure in failures)
    assert good.row in one.sandbox.read().rows


def test_a_vni_conflict_names_the_holder(world: World, two_hosts: tuple[Host, Host]) -> None:
    """The failure names the other VXLAN device with the same VNI."""
    one, _ = two_hosts
    vtep = ("type", "vxlan", "id", "4097", "dstport", "4789", "local", "192.168.56.11")
    world.run(one.name, "ip", "link", "add", "vx-swarm", *vtep)
    wish = PutLink(Vxlan("vxlan1", Vni(4097), one.underlay, 4789, 1450, "br0"))
    (failure,) = one.sandbox.apply([wish])

    assert failure.errno == errno.EEXIST
    assert "vx-swarm" in failure.reason
    assert "4097" in failure.reason


def test_a_port_conflict_names_the_holder(world: World) -> None:
    """A UDP port that a program holds keeps the VTEP down.

    The failure names the program.
    """
    host = world.host()
    with netns.inside(world.fd(host.name)), socket.socket(type=socket.SOCK_DGRAM) as taken:
        taken.bind(("0.0.0.0", 4789))  # noqa: S104 - alone in a namespace
        for _ in range(2):
            (failure,) = host.converge()
            assert failure.errno == errno.EADDRINUSE
            assert str(os.getpid()) in re.findall(r"process (\d+)", failure.reason)

    assert host.converge() == []
    assert host.differences() == []


@pytest.mark.parametrize(
    ("underlays", "gateway", "prefix_length", "containers"),
    [
        (("192.168.56.11", "192.168.56.12"), "fd10:32::1", 64, ("fd10:32::2", "fd10:32::3")),
        (("fd56::11", "fd56::12"), "10.32.0.1", 16, ("10.32.0.2", "10.32.0.3")),
        (("fd56::11", "fd56::12"), "fd10:32::1", 64, ("fd10:32::2", "fd10:32::3")),
    ],
    ids=["IPv6 over IPv4", "IPv4 over IPv6", "IPv6 over IPv6"],
)
def test_address_families(
    world: World,
    underlays: tuple[str, str],
    gateway: str,
    prefix_length: int,
    containers: tuple[str, str],
) -> None:
    """Overlay and underlay may each be IPv4 or IPv6."""
    one, two = (world.host(underlay, gateway, prefix_length) for underlay in underlays)
    world.pair(one, two)
    for host in (one, two):
        host.mtu = 1430
        assert host.converge() == []
    names = [host.attach(parse_ip(text)) for host, text in zip((one, two), containers, strict=True)]
    one.remotes.append((parse_ip(containers[1]), two.underlay))
    two.remotes.append((parse_ip(containers[0]), one.underlay))
    for host in (one, two):
        assert host.converge() == []
        assert host.differences() == []

    assert world.pings(names[0], containers[1]) == 1
    assert world.pings(names[0], gateway) == 1
    overhead = 48 if ":" in gateway else 28
    full_size = ("-M", "do", "-s", str(1430 - overhead))
    assert world.pings(names[0], containers[1], *full_size) == 1
