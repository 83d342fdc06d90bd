"""VXLAN devices over IPv6 that accept packets without a UDP checksum, and those that do not."""

from __future__ import annotations

import pytest
from overlay.kernel import netns
from overlay.kernel.sandbox.sandbox import Sandbox
from tests.kernel.conftest import Host, World

pytestmark = pytest.mark.netns


def two_hosts_on_ipv6(world: World) -> tuple[Host, Host]:
    """Return two hosts with a cable between them, without VXLAN devices yet."""
    one, two = world.host("fd56::11"), world.host("fd56::12")
    for host in (one, two):
        host.mtu = 1430
    world.pair(one, two)
    return one, two


def reopened(world: World, host: Host) -> Sandbox:
    """Return the host's sandbox, opened and read as the next agent does."""
    host.sandbox.close()
    with netns.inside(world.fd(host.name)):
        host.sandbox = Sandbox.open(host.sandbox.name, create=True, over_ipv6=True)
    assert host.differences() == []
    return host.sandbox


def test_devices_over_ipv6_accept_it(world: World) -> None:
    """The kernel says so to the agent that made the device, and to the next one."""
    for host in two_hosts_on_ipv6(world):
        assert host.converge() == []
        assert host.sandbox.zero_checksums == {"vxlan0": True}
        assert reopened(world, host).zero_checksums == {"vxlan0": True}


def test_devices_over_ipv4_have_the_default(world: World) -> None:
    """Nothing changes there: the checksum of IPv4 is optional."""
    host = world.host("192.168.56.11")
    assert host.converge() == []
    assert host.sandbox.zero_checksums == {"vxlan0": False}


def test_beside_an_older_device_a_new_one_is_as_it_is(world: World) -> None:
    """The port's socket has one setting: the older device stays, and the new one works with it."""
    one, two = two_hosts_on_ipv6(world)
    older = ("type", "vxlan", "id", "77", "dstport", "4789", "local", "fd56::11")
    world.run(one.name, "ip", "link", "add", "older", *older)
    world.run(one.name, "ip", "link", "set", "older", "up")
    for host in (one, two):
        assert host.converge() == []

    assert one.sandbox.zero_checksums == {"vxlan0": False}
    assert one.differences() == []
    assert reopened(world, one).zero_checksums == {"vxlan0": False}
    first, _ = world.plug(one, two)
    assert world.pings(first, "10.32.0.3") == 1
    assert "UP" in world.run(one.name, "ip", "link", "show", "older")


def test_a_device_that_a_crash_left_down_is_made_anew(world: World) -> None:
    """It was made before the kernel refused its socket, beside an older device."""
    one, _ = two_hosts_on_ipv6(world)
    assert one.converge() == []
    world.run(one.sandbox.name, "ip", "link", "set", "vxlan0", "down")
    older = ("type", "vxlan", "id", "77", "dstport", "4789", "local", "fd56::11")
    world.run(one.name, "ip", "link", "add", "older", *older)
    world.run(one.name, "ip", "link", "set", "older", "up")

    one.converge()
    assert one.converge() == []
    assert one.differences() == []
    assert one.sandbox.zero_checksums == {"vxlan0": False}
