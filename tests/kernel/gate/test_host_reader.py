"""What a gate is planned by is read from a real host."""

from __future__ import annotations

import select
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from overlay.core.gate.host_view import HostAddress, HostInterface
from overlay.kernel import netns
from overlay.kernel.gate.host_reader import read_host
from overlay.kernel.gate.ipsec_policies import has_ipsec_policies, policy_monitor
from overlay.kernel.gate.used_ports import listening_ports
from overlay.model import parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
MAKE = """set -e
ip link add eth0 type veth peer name other
ip link add ovg7 type veth peer name far; ip link set ovg7 alias overlayd
ip address add 192.0.2.1/24 dev eth0; ip address add 192.0.2.9/24 dev eth0
ip address add 10.9.0.1/24 dev eth0; ip address add 2001:db8::1/64 dev eth0 nodad
ip address add 2001:db8::2/64 dev eth0 nodad preferred_lft 0
ip link set eth0 mtu 1400 up; ip link set other up
ip route add default via 10.9.0.254; ip route add 3fff::/20 via 2001:db8::ffff"""

ADD_POLICY = "ip xfrm policy add dst 10.0.0.0/8 dir out action block"


def of(name: str, host: str, world: World) -> HostInterface:
    """Return an interface as it is read."""
    with netns.inside(world.fd(host)):
        (found,) = [each for each in read_host().interfaces if each.name == name]
    return found


@pytest.fixture
def host(world: World) -> str:
    """Return a host with an interface that has several addresses."""
    name = world.namespace("host")
    world.run(name, "sh", "-c", MAKE)
    return name


def test_interfaces_addresses_and_gateways_are_read(world: World, host: str) -> None:
    """Secondary and deprecated addresses are told apart, as a packet does not leave by them."""
    found = of("eth0", host, world)
    assert (found.mtu, found.is_ethernet, found.is_own) == (1400, True, False)
    assert [each for each in found.addresses if each.is_preferred] == [
        HostAddress(parse_ip("192.0.2.1"), 24),
        HostAddress(parse_ip("10.9.0.1"), 24),
        HostAddress(parse_ip("2001:db8::1"), 64),
        *(each for each in found.addresses if each.ip[:2] == b"\xfe\x80" and each.is_preferred),
    ]
    assert {parse_ip("192.0.2.9"), parse_ip("2001:db8::2")} <= {
        each.ip for each in found.addresses if not each.is_preferred
    }
    assert found.gateways == (parse_ip("10.9.0.254"), parse_ip("2001:db8::ffff"))


def test_overlayds_own_interfaces_are_known_by_their_alias(world: World, host: str) -> None:
    """They lead nowhere outside; the loopback is no Ethernet interface."""
    assert of("ovg7", host, world).is_own
    assert not of("lo", host, world).is_ethernet


def test_ports_are_read(world: World, host: str) -> None:
    """Those at which programs listen, whatever the family, and those that the host chooses from."""
    reserve = "net.ipv4.ip_local_reserved_ports=40000,40100-40102"
    world.run(host, "sysctl", "-qw", "net.ipv4.ip_local_port_range=30000 50000", reserve)
    with netns.inside(world.fd(host)), ExitStack() as opened:
        for family, kind, port in (
            (socket.AF_INET, socket.SOCK_STREAM, 8080),
            (socket.AF_INET6, socket.SOCK_STREAM, 8081),
            (socket.AF_INET, socket.SOCK_DGRAM, 8082),
            (socket.AF_INET6, socket.SOCK_DGRAM, 8083),
        ):
            made = opened.enter_context(socket.socket(family, kind))
            made.bind(("", port))
            if kind == socket.SOCK_STREAM:
                made.listen()
        assert listening_ports() == {8080, 8081, 8082, 8083}
        view = read_host()
    assert view.own_ports == (30_000, 50_000)
    assert view.reserved_ports == {40_000, 40_100, 40_101, 40_102}


def test_ipsec_policies_are_seen_and_watched(world: World, host: str) -> None:
    """A host that has one may have no gate from then on."""
    with netns.inside(world.fd(host)):
        monitor = policy_monitor()
        assert monitor is not None
        assert not has_ipsec_policies()
        world.run(
            host,
            *["ip", "xfrm", "policy", "add", "dst", "10.0.0.0/8", "dir", "out", "action", "block"],
        )
        assert select.select([monitor.fileno()], [], [], 10)[0]
        assert has_ipsec_policies()
        assert read_host().has_ipsec
        monitor.close()
