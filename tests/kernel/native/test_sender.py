"""Native send on real interfaces: what leaves so, how it looks, and what takes the device."""

from __future__ import annotations

import json
import socket
import struct
from collections.abc import Callable
from functools import partial

import pytest
from overlay.core.dataplane.state import PolicyClassRow, Row, VerdictRow
from overlay.core.native.state import NativeState
from overlay.kernel import netns
from overlay.kernel.bpf.fast_path import FastPath
from overlay.kernel.sandbox.traffic import read_traffic
from overlay.model import ip_text
from tests.kernel.bpf.test_fast_path import counts_redirected_frames
from tests.kernel.conftest import Capture, World
from tests.kernel.native.conftest import (
    THREE,
    THREE_IPV6,
    TWO,
    Native,
    PairMaker,
    give_ipv6,
    start_sending,
)
from tests.kernel.native.streams import DATA, set_offload, stream

pytestmark = [pytest.mark.netns, pytest.mark.kernels]


@pytest.fixture
def senders(pair: tuple[Native, Native]) -> tuple[Native, Native]:
    """Return two hosts on an IPv4 underlay that send natively, and know each other's ARP."""
    start_sending(pair)
    assert pair[0].host.world.pings(pair[0].container, "10.32.0.3", count=2) == 2
    return pair


@pytest.mark.parametrize("inner", [4, 6])
@pytest.mark.parametrize("outer", [4, 6])
def test_streams_leave_by_the_shortcut(
    world: World, make_pair: PairMaker, outer: int, inner: int
) -> None:
    """TCP of each IP version, inside and outside, leaves past the device and arrives whole."""
    pair = one, two = make_pair(outer)
    give_ipv6(world, pair)
    start_sending(pair)
    for on in (True, False):
        set_offload(world, one.container, on=on)
        before = [each.sent("vxlan0") for each in pair]
        address = THREE if inner == 4 else THREE_IPV6
        assert stream(world, one.container, two.container, address) == DATA
        by_device = [each.sent("vxlan0") - then for each, then in zip(pair, before, strict=True)]
        assert max(by_device) < 20  # ARP and neighbor discovery; the stream has 64 packets and more


def test_packets_are_as_those_of_the_device(
    senders: tuple[Native, Native], world: World, capture: Callable[[str, str], Capture]
) -> None:
    """Addresses, TTL, VNI and port are right, ECN is copied, and each flow has its source port."""
    one, two = senders
    seen = capture(one.host.name, "eth1")
    with netns.inside(world.fd(one.container)):
        clients = [socket.socket(socket.AF_INET, socket.SOCK_DGRAM) for _ in range(20)]
    for number, client in enumerate(clients):
        with client:
            client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0xB8 | number % 4)
            client.sendto(b"x", (ip_text(THREE), 9))
    frames = seen.wait_for(20, lambda frame: frame[50 + 14 + 9 : 50 + 14 + 10] == b"\x11")
    ports = set()
    for number, frame in enumerate(frames[:20]):
        ip, udp, vxlan = frame[14:34], frame[34:42], frame[42:50]
        assert ip[:2] == bytes([0x45, number % 4])  # the class of service is not copied
        assert struct.unpack("!H", ip[2:4])[0] == len(frame) - 14
        assert ip[6:10] == b"\x40\x00\x40\x11"
        assert ip[12:] == one.host.underlay + two.host.underlay
        assert sum(struct.unpack("!10H", ip)) % 0xFFFF == 0
        assert struct.unpack("!3H", udp[2:]) == (4789, len(frame) - 34, 0)
        assert vxlan == b"\x08\0\0\0" + int(one.host.vni).to_bytes(3, "big") + b"\0"
        ports.add(struct.unpack("!H", udp[:2])[0])
    first, last = map(int, world.run(one.host.name, "cat", _PORT_RANGE).split())
    assert len(ports) > 5
    assert all(first <= port <= last for port in ports)


_PORT_RANGE = "/proc/sys/net/ipv4/ip_local_port_range"


def refusal(native: Native, size: int) -> str:
    """Return what a ping that must not be fragmented prints."""
    command = f"ping -n -c 1 -W 1 -M do -s {size} {ip_text(native.other)} || true"
    return native.host.world.run(native.container, "sh", "-c", command)


def test_what_does_not_fit_takes_the_device(senders: tuple[Native, Native], world: World) -> None:
    """Fragments arrive by the device, and a packet above the route's MTU gets its ICMP error."""
    one, _ = senders
    assert one.pings_past_device(5) >= 4
    assert one.pings_past_device(5, "-s", "3000") <= 0  # three fragments each
    small = ("dev", "eth1", "mtu", "lock", "1400")
    world.run(one.host.name, "ip", "route", "replace", "192.168.56.12", *small)
    assert "Frag needed and DF set (mtu = 1350)" in refusal(one, 1400)
    assert one.pings_past_device(5) >= 4


def test_what_has_no_way_is_left_to_the_device(
    senders: tuple[Native, Native], world: World, capture: Callable[[str, str], Capture]
) -> None:
    """Without a route a frame goes back to the device; with the route it leaves again."""
    one, _ = senders
    seen = capture(one.host.sandbox.name, "vxlan0")
    world.run(one.host.name, "ip", "route", "add", "blackhole", "192.168.56.12")
    assert world.pings(one.container, "10.32.0.3", "-W", "0.1", count=3) == 0
    by_device = [frame for frame in seen.frames() if frame[12:14] == b"\x08\x00"]
    assert len(by_device) == 3
    world.run(one.host.name, "ip", "route", "del", "blackhole", "192.168.56.12")
    assert one.pings_past_device(10) >= 8


def test_routes_are_followed_at_each_packet(senders: tuple[Native, Native], world: World) -> None:
    """Another route, a rule, and a route by a gateway of the other version count at once."""
    one, two = senders
    cable = ("eth2", "type", "veth", "peer", "eth2", "netns", two.host.name)
    world.run(one.host.name, "ip", "link", "add", *cable)
    for number, native in ((1, one), (2, two)):
        name = native.host.name
        world.run(name, "ip", "address", "add", f"192.168.57.{number}/24", "dev", "eth2")
        world.run(name, "ip", "address", "add", f"fd57::{number}/64", "dev", "eth2", "nodad")
        world.run(name, "ip", "link", "set", "eth2", "up")
    for gateway in ("192.168.57.2", "fd57::2"):  # the cable may be up before its addresses are
        ping = partial(world.pings, one.host.name, gateway, count=1)
        world.wait_until(lambda ping=ping: ping() == 1, gateway)  # type: ignore[misc]
    target = "192.168.56.12"
    for route in (("dev", "eth2"), ("via", "192.168.57.2"), ("via", "inet6", "fd57::2")):
        before = one.counted("eth2")
        world.run(one.host.name, "ip", "route", "replace", target, *route)
        assert one.pings_past_device(20) >= 18
        assert one.counted("eth2") - before >= 20
        world.run(one.host.name, "ip", "route", "del", target)
    before = one.counted("eth2")
    world.run(one.host.name, "ip", "route", "add", target, "dev", "eth2", "table", "9")
    world.run(one.host.name, "ip", "rule", "add", "from", "192.168.56.11", "lookup", "9")
    assert one.pings_past_device(20) >= 18
    assert one.counted("eth2") - before >= 20
    world.run(one.host.name, "ip", "link", "set", "eth2", "down")  # and its route is gone
    before = one.counted("eth1")
    assert one.pings_past_device(20) >= 18
    assert one.counted("eth1") - before >= 20


def test_a_neighbors_new_mac_is_followed(senders: tuple[Native, Native], world: World) -> None:
    """A member whose interface gets another MAC is reached as soon as the kernel knows it."""
    one, two = senders
    world.run(two.host.name, "ip", "link", "set", "eth1", "address", "02:00:00:00:00:99")
    world.run(one.host.name, "ip", "neigh", "flush", "dev", "eth1")
    assert one.pings_past_device(20) >= 18


@pytest.mark.parametrize("sabotage", ["filter", "qdisc", "end"])
def test_a_lost_sender_is_restored(
    senders: tuple[Native, Native], world: World, sabotage: str
) -> None:
    """A program that is gone from the host's end is a difference, and one pass restores it."""
    one, _ = senders
    end = one.host.sandbox.shortcuts.host_ends["native0"]
    (name,) = (
        link["ifname"]
        for link in json.loads(world.run(one.host.name, "ip", "-j", "link"))
        if link["ifindex"] == end
    )
    words = {
        "filter": ("tc", "filter", "del", "dev", name, "ingress"),
        "qdisc": ("tc", "qdisc", "del", "dev", name, "clsact"),
        "end": ("ip", "link", "del", name),
    }
    world.run(one.host.name, *words[sabotage])

    assert one.differences() != []
    with netns.inside(world.fd(one.host.name)):
        assert one.converge() == []
    assert one.differences() == []
    one.receive()
    assert one.pings_past_device(10) >= 8


def test_the_next_agent_sends_without_a_gap(senders: tuple[Native, Native], world: World) -> None:
    """With the descriptors closed frames still leave so; the next agent replaces all programs."""
    one, _ = senders
    assert one.host.sandbox.fast_path is not None
    one.host.sandbox.fast_path.close()
    assert one.pings_past_device(10) >= 8

    one.host.sandbox.fast_path = FastPath()
    assert any("leaving" in text for text in one.differences())
    with netns.inside(world.fd(one.host.name)):
        assert one.converge() == []
    assert one.differences() == []
    assert one.pings_past_device(10) >= 8


def test_the_device_takes_over_again(senders: tuple[Native, Native], world: World) -> None:
    """Without the rows frames leave by the device, and nothing of the sender is left."""
    one, _ = senders
    one.sends = False
    with netns.inside(world.fd(one.host.name)):
        assert one.converge() == []
    assert one.differences() == []
    assert one.pings_past_device(10) <= 0


def test_the_next_agent_takes_back_what_its_predecessor_sends(
    senders: tuple[Native, Native], world: World
) -> None:
    """A network may have got a shared rate while the agent was down: the device shapes it."""
    one, _ = senders
    assert one.host.sandbox.fast_path is not None
    one.host.sandbox.fast_path.close()
    one.host.sandbox.fast_path = FastPath()
    one.sends = False
    with netns.inside(world.fd(one.host.name)):
        assert one.converge() == []
    assert one.differences() == []
    assert one.pings_past_device(10) <= 0


def test_a_spoofed_source_does_not_leave(senders: tuple[Native, Native], world: World) -> None:
    """A packet from an address that is not the port's is left to the bridge and its filter."""
    one, two = senders
    world.run(one.container, "ip", "address", "add", "10.32.0.77/16", "dev", "eth0")
    before = one.sent("vxlan0")
    world.pings(one.container, "10.32.0.3", "-I", "10.32.0.77", "-W", "0.1", count=5)
    assert one.sent("vxlan0") - before >= 5
    assert two.own != TWO


def test_a_deleted_shortcut_sends_nothing_nowhere(
    senders: tuple[Native, Native], world: World
) -> None:
    """Without any pass after it, frames take the device when the shortcut is gone."""
    one, _ = senders
    world.run(one.host.sandbox.name, "ip", "link", "del", "native0")
    before = one.sent("vxlan0")
    with netns.inside(world.fd(one.host.name)):
        one.receiver.write(one.receiver.read(), NativeState())
    assert world.pings(one.container, "10.32.0.3", count=10) == 10
    assert one.sent("vxlan0") - before >= 10


def test_policies_judge_what_leaves_and_what_comes_back(
    senders: tuple[Native, Native], world: World, capture: Callable[[str, str], Capture]
) -> None:
    """Allowed packets pass by the shortcut, and by the device after they came back; no others."""
    one, two = senders
    rows: set[Row] = {PolicyClassRow(TWO, 32, 2), PolicyClassRow(THREE, 32, 3)}
    rows.add(VerdictRow(0, 0, 0, 0, 0, allow=False))
    rows.add(VerdictRow(2, 3, 1, 0, 0, allow=True, rule=1))
    for native in senders:
        native.policies = frozenset(rows)
        with netns.inside(world.fd(native.host.name)):
            assert native.converge() == []
            assert native.differences() == []
    assert one.pings_past_device(10) >= 8
    small = ("dev", "eth1", "mtu", "lock", "1400")
    world.run(one.host.name, "ip", "route", "replace", "192.168.56.12", *small)
    assert (
        one.pings_past_device(5, "-M", "dont", "-s", "1370") <= 0
    )  # the device fragments its packets
    seen = [capture(one.host.sandbox.name, link) for link in ("vxlan0", "native0")]
    with netns.inside(world.fd(one.container)):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        client.sendto(b"denied", (ip_text(two.own), 9))
    assert world.pings(one.container, "10.32.0.3") == 1
    assert not any(b"denied" in frame for each in seen for frame in each.frames())


def test_what_leaves_so_is_counted(senders: tuple[Native, Native], world: World) -> None:
    """The tunnel's counters grow by what leaves and comes by the shortcut, once for each."""
    one, _ = senders
    if not counts_redirected_frames():
        return  # nor does an older kernel count what the fast path hands to a container
    small = ("dev", "eth1", "mtu", "lock", "1400")
    world.run(one.host.name, "ip", "route", "replace", "192.168.56.12", *small)
    for size in ("100", "1370"):  # the second ones come back, and leave by the device
        before = read_traffic(one.host.sandbox.socket).tunnel
        one.pings_past_device(50, "-M", "dont", "-s", size)
        after = read_traffic(one.host.sandbox.socket).tunnel
        assert before is not None
        assert after is not None
        grown = after.since(before)
        assert 50 <= grown.transmit_packets < 75
        assert 50 <= grown.receive_packets < 75


def test_the_hosts_own_frames_stay_outside(
    senders: tuple[Native, Native], world: World, capture: Callable[[str, str], Capture]
) -> None:
    """Packets that a program of the host sends by all interfaces reach no container by it."""
    one, _ = senders
    end = one.host.sandbox.shortcuts.host_ends["native0"]
    seen = capture(one.container, "eth0")
    with netns.inside(world.fd(one.host.name)):
        name = socket.if_indextoname(end)
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with raw:
        raw.bind((name, 0))
        raw.send(b"\xff" * 6 + bytes(6) + b"\x08\x00" + b"stray".ljust(60, b"\0"))
    assert one.pings_past_device(1) <= 1
    assert not any(b"stray" in frame for frame in seen.frames())
