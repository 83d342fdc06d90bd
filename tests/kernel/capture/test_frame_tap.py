"""Frames of one interface, from the kernel; e2e tests capture on both paths."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from overlay.core.capture.classic_bpf import ALL, Instruction, Program
from overlay.core.protocol.capture import CapturedFrame
from overlay.kernel import netns
from overlay.kernel.capture import container_tap, libpcap
from overlay.kernel.capture.container_tap import TapPlace
from overlay.kernel.capture.frame_tap import FrameTap
from overlay.model import Mac, mac_for, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import Host, World

pytestmark = pytest.mark.netns
FIRST = parse_ip("10.32.0.2")
BUFFER_SIZE = 1 << 20
ECHO_SIZE = 14 + 20 + 8 + 56


def tap_in(world: World, name: str, program: Program = ALL, snap: int = 2000) -> FrameTap:
    """Return a tap at a container's interface."""
    return FrameTap(world.fd(name), "eth0", program, snap=snap, buffer_size=BUFFER_SIZE)


def echoes(frames: list[CapturedFrame]) -> list[CapturedFrame]:
    """Return the frames of ping."""
    return [each for each in frames if each.data[12:14] == b"\x08\x00" and each.data[23] == 1]


def test_both_directions_are_captured(world: World, two_hosts: tuple[Host, Host]) -> None:
    """With the time of the kernel, whole."""
    name, _ = world.plug(*two_hosts)
    with tap_in(world, name) as tap:
        assert world.pings(name, "10.32.0.3", count=2) == 2
        found = echoes(tap.frames())
        tap.read_counts()

    assert [each.is_outgoing for each in found] == [True, False, True, False]
    assert {(each.size, len(each.data)) for each in found} == {(ECHO_SIZE, ECHO_SIZE)}
    assert sorted(each.time_ns for each in found) == [each.time_ns for each in found]
    assert tap.received >= 4
    assert tap.dropped == 0


def test_a_filter_and_a_snap_make_less_of_it(world: World, two_hosts: tuple[Host, Host]) -> None:
    """The size of a frame that was cut is still known."""
    name, _ = world.plug(*two_hosts)
    with tap_in(world, name, libpcap.compiled("icmp[icmptype] = icmp-echoreply"), snap=42) as tap:
        assert world.pings(name, "10.32.0.3", count=1) == 1
        (reply,) = tap.frames()

    assert (reply.is_outgoing, reply.size, len(reply.data)) == (False, ECHO_SIZE, 42)


def test_what_does_not_fit_the_buffer_is_counted(
    world: World, two_hosts: tuple[Host, Host]
) -> None:
    """The kernel drops it: reading is bounded, and so is memory."""
    name, _ = world.plug(*two_hosts)
    with FrameTap(world.fd(name), "eth0", ALL, snap=2000, buffer_size=2048) as tap:
        assert world.pings(name, "10.32.0.3", "-i", "0.002", count=50) == 50
        taken = len(tap.frames(1000))
        tap.read_counts()

    assert taken < 100
    assert tap.dropped >= 100 - taken


def test_a_program_that_the_kernel_refuses_is_an_error(
    world: World, two_hosts: tuple[Host, Host]
) -> None:
    """A jump out of the program; whoever sent it learns no more than that."""
    name, _ = world.plug(*two_hosts)
    with pytest.raises(OSError, match="Invalid argument"):
        tap_in(world, name, (Instruction(5, 0, 0, 9), *ALL))


def test_a_container_that_ends_is_noticed(world: World, two_hosts: tuple[Host, Host]) -> None:
    """By its interface, and by its name: the tap itself keeps the namespace alive."""
    name, other = world.plug(*two_hosts)
    places = {}
    for each in (name, other):
        with netns.closing(netns.open_fd(netns.path_of(each))) as fd:
            identity = netns.identity(fd)
        mac = Mac(mac_for(two_hosts[0].vni, FIRST)) if each == name else Mac(b"\2" * 6)
        places[each] = TapPlace(str(netns.path_of(each)), identity, "eth0", mac)
    taps = {
        each: container_tap.open_tap(place, ALL, snap=100, buffer_size=BUFFER_SIZE)
        for each, place in places.items()
    }
    for each, tap in taps.items():
        assert tap is not None
        assert not container_tap.is_gone(places[each], tap)
    world.run(name, "ip", "link", "del", "eth0")
    netns.remove(other)
    for each, tap in taps.items():
        assert tap is not None
        assert container_tap.is_gone(places[each], tap)
        assert tap.frames() is not None  # an interface that went down is no error
        tap.close()
    assert container_tap.open_tap(places[other], ALL, snap=9, buffer_size=BUFFER_SIZE) is None


def test_an_interface_that_is_renamed_is_found(world: World, two_hosts: tuple[Host, Host]) -> None:
    """By its MAC, as Docker renames its containers' interfaces."""
    name, _ = world.plug(*two_hosts)
    for words in (("down",), ("name", "lan7"), ("up",)):
        at = "lan7" if words == ("up",) else "eth0"
        world.run(name, "ip", "link", "set", at, *words)
    with netns.closing(netns.open_fd(netns.path_of(name))) as fd:
        identity = netns.identity(fd)
    mac = Mac(mac_for(two_hosts[0].vni, FIRST))
    place = TapPlace(str(netns.path_of(name)), identity, "eth0", mac)
    tap = container_tap.open_tap(place, ALL, snap=100, buffer_size=BUFFER_SIZE)
    assert tap is not None
    assert tap.ifname == "lan7"
    tap.close()
