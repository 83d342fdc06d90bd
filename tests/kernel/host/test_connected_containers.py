"""The kernel alone shows which containers are connected to a sandbox."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.state import GuardRow
from overlay.kernel import netns
from overlay.kernel.host.connected_containers import connected_containers
from overlay.kernel.sandbox import veth
from overlay.model import Mac, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns


def test_a_container_is_found_by_its_port(world: World) -> None:
    """Its namespace, interface, MAC, addresses and default route are those that it has."""
    host = world.host()
    assert host.converge() == []
    name = world.namespace("c")
    descriptor = world.fd(name)
    addresses = [(parse_ip("10.32.0.9"), 16), (parse_ip("fd00::9"), 64)]
    mac = Mac(b"\2\0\0\0\0\x09")
    veth.attach_interface(
        host.sandbox,
        port_name="ve0102",
        bridge="br0",
        netns_fd=descriptor,
        ifname="eth7",
        mac=mac,
        addresses=addresses,
        mtu=1450,
        gateway=parse_ip("10.32.0.1"),
    )

    (found,) = connected_containers([host.sandbox.name, "no-such-sandbox"])

    assert (found.sandbox, found.port) == (host.sandbox.name, "ve0102")
    assert found.identity == netns.identity(descriptor)
    assert found.netns_path == str(netns.path_of(name))
    assert (found.ifname, found.mac) == ("eth7", mac)
    assert found.addresses == tuple(ip for ip, _ in addresses)
    assert found.default_route


def test_a_port_without_a_container_is_not_reported(world: World) -> None:
    """A sandbox without ports, and the other ports of one, lead to no container."""
    host = world.host()
    assert host.converge() == []

    assert connected_containers([host.sandbox.name]) == []


def test_an_interface_that_a_runtime_moved_names_its_endpoint(world: World) -> None:
    """Moved into the container and renamed there, it still tells by which id the runtime has it."""
    host = world.host()
    assert host.converge() == []
    name = world.namespace("c")
    mac = Mac(b"\2\0\0\0\0\x09")
    with netns.inside(world.fd(host.name)):
        veth.offer_interface(
            host.sandbox,
            port_name="ve0102",
            bridge="br0",
            ifname="ovd0102",
            mac=mac,
            mtu=1450,
            allowed=GuardRow((mac,), (), "ve0102"),
            runtime_endpoint="c" * 64,
        )
    world.run(host.name, "ip", "link", "set", "ovd0102", "netns", name, "name", "eth0")

    (found,) = connected_containers([host.sandbox.name])

    assert (found.ifname, found.runtime_endpoint) == ("eth0", "c" * 64)
