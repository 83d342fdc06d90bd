"""The host's uplink on a network: created, checked, repaired in place."""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import TYPE_CHECKING

import pytest
from overlay.kernel import netns
from overlay.kernel.host import uplink
from overlay.kernel.host.uplink import Uplink
from overlay.model import NodeId, Vni, mac_for, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import Host, World

pytestmark = pytest.mark.netns
IP, IP6 = parse_ip("10.32.255.254"), parse_ip("fd32::fe")
LINK = Uplink(
    name=uplink.uplink_name(Vni(7), NodeId(b"\xaa\xbb\xcc" + bytes(13))),
    port="host0",
    bridge="br0",
    mac=mac_for(Vni(7), IP),
    mtu=1450,
    addresses=((IP, 16), (IP6, 64)),
)


@pytest.fixture
def host(world: World) -> Host:
    """Return a host with a bridge and a container on it."""
    made = world.host()
    assert made.converge() == []
    return made


def ensure(world: World, host: Host) -> list[str]:
    """Create or repair the uplink; return what was wrong."""
    with netns.inside(world.fd(host.name)):
        return uplink.ensure_uplink(host.sandbox, LINK, uplink.survey([LINK]))


def faults(world: World, host: Host) -> list[str]:
    """Return what is wrong now."""
    with netns.inside(world.fd(host.name)):
        return uplink.uplink_faults(LINK, uplink.survey([LINK]))


def test_host_and_container_reach_each_other_at_once(world: World, host: Host) -> None:
    """The first ping of each gets a reply; the name contains VNI and node."""
    container = host.attach(parse_ip("10.32.0.2"))

    assert ensure(world, host) == [f"{LINK.name} was missing"]
    assert LINK.name == "ovh000007aabbcc"
    assert world.pings(host.name, "10.32.0.2") == 1
    assert world.pings(container, "10.32.255.254") == 1
    assert (faults(world, host), ensure(world, host)) == ([], [])


@pytest.mark.parametrize(
    ("damage", "told"),
    [
        ("ip link set {} down", "was down"),
        ("ip link set {} mtu 1400", "had MTU 1400"),
        ("ip link set {} alias theirs", "had lost its mark"),
        ("ip address add 10.9.9.9/32 dev {}", "had an unexpected address"),
        ("ip address del 10.32.255.254/16 dev {}", "lacked an address"),
        ("ip address del fd32::fe/64 dev {}", "lacked an address"),
        ("ip route del 10.32.0.0/16 dev {}", "lacked its route"),
        ("ip -6 route del fd32::/64 dev {}", "lacked its route"),
        ("ip -6 route del local ::1 dev {} table local", "lacked its return route to ::1"),
        ("ip link set {} address 02:00:00:00:00:09", "was missing"),
        ("ip link del {}", "was missing"),
    ],
)
def test_damage_is_detected_and_repaired(world: World, host: Host, damage: str, told: str) -> None:
    """Damage is described and repaired, and what exists is not recreated."""
    host.attach(parse_ip("10.32.0.2"))
    ensure(world, host)
    before = world.run(host.name, "ip", "-o", "link", "show", LINK.name).split(":")[0]
    world.run(host.name, *damage.format(LINK.name).split())

    assert any(told in text for text in ensure(world, host))
    assert faults(world, host) == []
    assert world.pings(host.name, "10.32.0.2") == 1
    after = world.run(host.name, "ip", "-o", "link", "show", LINK.name).split(":")[0]
    assert (after == before) == (told != "was missing")


def test_another_interface_with_a_part_of_the_subnet_is_named(world: World, host: Host) -> None:
    """The uplink has its route, and the kernel prefers the other one: no repair helps."""
    ensure(world, host)
    world.run(host.name, "ip", "link", "add", "other0", "type", "bridge")
    world.run(host.name, "ip", "address", "add", "10.32.0.9/24", "dev", "other0")
    world.run(host.name, "ip", "link", "set", "other0", "up")

    assert ensure(world, host) == [f"{LINK.name} lacked its route"]
    assert ensure(world, host) == [f"{LINK.name} lacked its route"]
    with netns.inside(world.fd(host.name)):
        told = uplink.rivals([LINK], uplink.survey([LINK]))
    assert told == ["10.32.0.0/16 is reached by other0"]
    world.run(host.name, "ip", "link", "del", "other0")
    assert (faults(world, host), ensure(world, host)) == ([], [])


def test_containers_cannot_change_the_hosts_routes(world: World, host: Host) -> None:
    """Redirects and router advertisements from the network are ignored."""
    ensure(world, host)
    names = ("ipv4.conf.{}.accept_redirects", "ipv6.conf.{}.accept_redirects",
             "ipv6.conf.{}.accept_ra")  # fmt: skip
    words = [f"net.{name.format(LINK.name)}" for name in names]

    assert world.run(host.name, "sysctl", "-n", *words).split() == ["0", "0", "0"]


def udp_frame(source_mac: bytes, destination: bytes, port: int, payload: bytes) -> bytes:
    """Return a frame for the uplink with UDP in IPv6 (RFC 8200, RFC 768)."""
    source = parse_ip("fd32::2")
    size = 8 + len(payload)
    head = struct.pack("!HHHH", 4000, port, size, 0)
    pseudo = source + destination + struct.pack("!II", size, 17) + head + payload
    total = sum(struct.unpack(f"!{len(pseudo) // 2}H", pseudo))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    head = head[:6] + struct.pack("!H", ~total & 0xFFFF or 0xFFFF)
    ip = struct.pack("!IHBB", 6 << 28, size, 17, 64) + source + destination
    return LINK.mac + source_mac + b"\x86\xdd" + ip + head + payload


def test_containers_cannot_reach_the_loopback(world: World, host: Host) -> None:
    """A container's frame for ::1 is dropped, despite the route there.

    A socket bound to all addresses receives the frame for the uplink's address, and not that one.
    """
    container, mac = host.attach(parse_ip("10.32.0.2")), mac_for(host.vni, parse_ip("10.32.0.2"))
    ensure(world, host)
    with netns.inside(world.fd(host.name)):
        ears = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        ears.bind(("::", 9999))
        ears.settimeout(0.5)
    with netns.inside(world.fd(container)):
        mouth = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
        mouth.bind(("eth0", 0))

    def heard() -> list[bytes]:
        """Send a datagram to each, the loopback first.

        Returns what arrives until silence.
        """
        mouth.send(udp_frame(mac, parse_ip("::1"), 9999, b"loopback"))
        mouth.send(udp_frame(mac, IP6, 9999, b"host"))
        found = []
        with contextlib.suppress(TimeoutError):
            while True:
                found.append(ears.recv(100))
        return found

    with ears, mouth:
        # The ports of a bridge forward once the kernel has checked their links, later under load.
        assert any(heard() for _ in range(20))
        assert heard() == [b"host"]
