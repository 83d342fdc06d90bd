"""The MTU of the underlay is what is configured, whatever ICMP messages say about the path."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from overlay.agent.gossip.transport import bind_socket
from overlay.kernel import netns
from overlay.kernel.host import underlay
from overlay.lab import frames
from overlay.model import Ip, ip_text, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns

OWN = {4: "192.168.56.11", 16: "fd56::11"}
PEER = {4: "192.168.56.12", 16: "fd56::12"}
STRANGER = {4: "192.168.56.200", 16: "fd56::200"}
PORT = 7948
MAC = bytes.fromhex("020000000001")
BOTH = pytest.mark.parametrize("size", [4, 16])


class TwoHosts:
    """A host, and the one next to it, from which anything can be sent."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.host, self.other = world.namespace("a"), world.namespace("b")
        cable = ("type", "veth", "peer", "eth1", "netns", self.other)
        world.run(self.host, "ip", "link", "add", "eth1", "address", MAC.hex(":"), *cable)
        for name, addresses in ((self.host, OWN), (self.other, PEER)):
            world.run(name, "ip", "link", "set", "eth1", "up")
            for size, address in addresses.items():
                extra = ("/24",) if size == 4 else ("/64", "nodad")
                world.run(name, "ip", "addr", "add", address + extra[0], "dev", "eth1", *extra[1:])

    def mtu(self, size: int) -> tuple[int, str]:
        """Return what the host's underlay carries towards its peer."""
        with netns.inside(self.world.fd(self.host)):
            chosen = underlay.choose_underlay(OWN[size], None)
            return underlay.carried_mtu(chosen, [("vm2", parse_ip(PEER[size]))])

    def forge(self, size: int, quoted: bytes, mtu: int) -> None:
        """Send the host an ICMP message of a stranger: a packet of it was too big."""
        packet = frames.too_big(parse_ip(STRANGER[size]), quoted, mtu)
        with (
            netns.inside(self.world.fd(self.other)),
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw,
        ):
            raw.bind(("eth1", 0))
            raw.send(frames.packet_frame(MAC, MAC[:5] + b"\x02", packet))

    def learned(self, size: int) -> bool:
        """Return whether the kernel has learned another MTU of the path."""
        return "mtu" in self.world.run(self.host, "ip", "route", "get", PEER[size])

    def datagram(self, size: int, port: int) -> bytes:
        """Return a datagram of the host to its peer's gossip port, as a router quotes it."""
        ends = parse_ip(OWN[size]), parse_ip(PEER[size])
        return frames.udp(*ends, (port, PORT), bytes(1200))


@pytest.fixture
def two(world: World) -> TwoHosts:
    """Return two hosts, connected in both families."""
    return TwoHosts(world)


@BOTH
def test_a_learned_path_mtu_does_not_count(two: TwoHosts, size: int) -> None:
    """The kernel remembers it for this destination; the underlay's MTU stays."""
    two.forge(size, frames.echo_reply(parse_ip(OWN[size]), parse_ip(PEER[size])), 1280)
    two.world.wait_until(lambda: two.learned(size), "the exception")

    assert two.mtu(size) == (1500, "eth1")


@BOTH
def test_a_routes_own_mtu_counts(two: TwoHosts, size: int) -> None:
    """Also while the kernel has learned a smaller one; the interface's, when it is gone."""
    route = ("route", "add", PEER[size], "dev", "eth1", "mtu", "1400")
    two.world.run(two.host, "ip", *route)
    two.forge(size, frames.echo_reply(parse_ip(OWN[size]), parse_ip(PEER[size])), 1280)
    two.world.wait_until(lambda: "1280" in _route(two, size), "the exception")

    assert two.mtu(size) == (1400, "the route to vm2 on eth1")
    two.world.run(two.host, "ip", "route", "del", PEER[size])
    assert two.mtu(size) == (1500, "eth1")


def test_the_smallest_of_several_next_hops_counts(two: TwoHosts) -> None:
    """A packet may take any of them."""
    run = two.world.run
    run(two.host, "ip", "link", "add", "eth2", "mtu", "1420", "type", "bridge")
    run(two.host, "ip", "addr", "add", "192.168.57.11/24", "dev", "eth2")
    run(two.host, "ip", "link", "set", "eth2", "up")
    hops = ("nexthop", "via", "192.168.56.1", "nexthop", "via", "192.168.57.1")
    run(two.host, "ip", "route", "add", "10.9.0.0/16", *hops)

    with netns.inside(two.world.fd(two.host)):
        chosen = underlay.choose_underlay(OWN[4], None)
        found = underlay.carried_mtu(chosen, [("vm2", parse_ip("10.9.0.1"))])
    assert found == (1420, "the route to vm2 on eth2")


@BOTH
def test_forged_icmp_does_nothing_to_gossip(two: TwoHosts, size: int) -> None:
    """The same message about a datagram of an ordinary socket is believed."""

    def ordinary(endpoint: tuple[Ip, int]) -> socket.socket:
        family = socket.AF_INET if size == 4 else socket.AF_INET6
        opened = socket.socket(family, socket.SOCK_DGRAM)
        opened.bind((ip_text(endpoint[0]), endpoint[1]))
        return opened

    assert not _believes(two, size, bind_socket, PORT)
    assert _believes(two, size, ordinary, PORT + 1)


def _believes(
    two: TwoHosts, size: int, bind: Callable[[tuple[Ip, int]], socket.socket], port: int
) -> bool:
    """Return whether the host believes a message about a datagram of such a socket."""
    with netns.inside(two.world.fd(two.host)):
        opened = bind((parse_ip(OWN[size]), port))
        fence = socket.socket(opened.family, socket.SOCK_DGRAM)
        fence.bind((OWN[size], 9))
        fence.settimeout(10)
    with opened, fence:
        two.forge(size, two.datagram(size, port), 1300)
        two.world.run(two.other, "python3", "-c", _SEND, OWN[size])
        fence.recv(100)  # sent after the message, so that has arrived
        return two.learned(size)


_SEND = """
import socket, sys
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
socket.socket(family, socket.SOCK_DGRAM).sendto(b"x", (sys.argv[1], 9))
"""


def _route(two: TwoHosts, size: int) -> str:
    return two.world.run(two.host, "ip", "route", "get", PEER[size])
