"""Native send over IPv6: how packets look, what does not fit, and who accepts them."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable

import pytest
from overlay.core.native.state import NativeState
from overlay.kernel import netns
from overlay.model import ip_text
from tests.kernel.conftest import Capture, World
from tests.kernel.native.conftest import (
    THREE,
    THREE_IPV6,
    UNDERLAYS,
    Native,
    PairMaker,
    give_ipv6,
    start_sending,
)
from tests.kernel.native.streams import DATA, stream

pytestmark = [pytest.mark.netns, pytest.mark.kernels]

_ETHERNET, _IPV6 = 14, 40
_INNER = _ETHERNET + _IPV6 + 8 + 8


@pytest.fixture
def senders(make_pair: PairMaker) -> tuple[Native, Native]:
    """Return two hosts on an IPv6 underlay that send natively, and know each other's ARP."""
    pair = make_pair(6)
    start_sending(pair)
    assert pair[0].host.world.pings(pair[0].container, "10.32.0.3", count=2) == 2
    return pair


def left(native: Native, seen: Capture, count: int, text: bytes) -> list[bytes]:
    """Return the frames with a text that a host has sent; errors that come back have it, too."""
    own = native.host.underlay
    return seen.wait_for(count, lambda frame: frame[22:38] == own and text in frame)


def test_packets_are_as_those_of_the_device(
    senders: tuple[Native, Native], world: World, capture: Callable[[str, str], Capture]
) -> None:
    """But for the checksum and ECN: hop limit, flow label and class are those of the device."""
    one, two = senders
    heads: dict[bool, bytes] = {}
    for native in (True, False):
        one.sends = native
        with netns.inside(world.fd(one.host.name)):
            assert one.converge() == []
        seen = capture(one.host.name, "eth1")
        with netns.inside(world.fd(one.container)):
            client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with client:
            client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0xB8)
            client.sendto(b"here", (ip_text(THREE), 9))
        (frame,) = left(one, seen, 1, b"here")
        heads[native] = frame[_ETHERNET:_INNER]
    sent, by_device = heads[True], heads[False]
    assert sent[:_IPV6] == by_device[:_IPV6]
    assert sent[8:_IPV6] == one.host.underlay + two.host.underlay
    port_and_length = slice(_IPV6 + 2, _IPV6 + 6)  # the source port is each flow's
    assert sent[port_and_length] == by_device[port_and_length]
    assert sent[_IPV6 + 6 : _IPV6 + 8] == bytes(2)
    assert by_device[_IPV6 + 6 : _IPV6 + 8] != bytes(2)
    assert sent[_IPV6 + 8 :] == by_device[_IPV6 + 8 :]


def test_congestion_is_copied(
    senders: tuple[Native, Native], world: World, capture: Callable[[str, str], Capture]
) -> None:
    """To the traffic class, whose other bits stay zero (RFC 6040)."""
    one, _ = senders
    seen = capture(one.host.name, "eth1")
    with netns.inside(world.fd(one.container)):
        client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with client:
        for ecn in range(4):
            client.setsockopt(socket.IPPROTO_IP, socket.IP_TOS, 0xB8 | ecn)
            client.sendto(b"ecn %d" % ecn, (ip_text(THREE), 9))
    found = {
        frame[-1:]: struct.unpack_from("!I", frame, _ETHERNET)[0]
        for frame in left(one, seen, 4, b"ecn ")
    }
    assert found == {b"%d" % ecn: 0x60000000 | ecn << 20 for ecn in range(4)}


def test_what_does_not_fit_takes_the_device(senders: tuple[Native, Native], world: World) -> None:
    """A packet above the route's MTU gets its ICMP error, and one that fits leaves natively."""
    one, _ = senders
    assert one.pings_past_device(5) >= 4
    assert one.pings_past_device(5, "-s", "1402", "-M", "do") >= 4  # fills the overlay's MTU
    small = ("dev", "eth1", "mtu", "lock", "1400")
    world.run(one.host.name, "ip", "route", "replace", UNDERLAYS[6][1], *small)
    command = f"ping -n -c 1 -W 1 -M do -s 1350 {ip_text(one.other)} || true"
    shown = world.run(one.container, "sh", "-c", command)
    assert "Frag needed and DF set (mtu = 1330)" in shown
    assert one.pings_past_device(5) >= 4


def test_a_tcp_stream_follows_the_path_mtu(senders: tuple[Native, Native], world: World) -> None:
    """Its segments leave by the device until their size fits the route, and all arrive."""
    one, two = senders
    give_ipv6(world, senders)
    small = ("dev", "eth1", "mtu", "lock", "1400")
    world.run(one.host.name, "ip", "route", "replace", UNDERLAYS[6][1], *small)
    for address in (THREE, THREE_IPV6):
        assert stream(world, one.container, two.container, address) == DATA


def test_a_host_without_the_native_path_receives_them(
    senders: tuple[Native, Native], world: World
) -> None:
    """Its VXLAN device accepts packets without a checksum, also those of a stream."""
    one, two = senders
    two.receiver.write(two.receiver.read(), NativeState())
    before = two.received("vxlan0")
    assert one.pings_past_device(10) >= 8
    assert two.received("vxlan0") - before >= 10
    assert stream(world, one.container, two.container, THREE) == DATA
    assert one.pings_past_device(10) >= 8
