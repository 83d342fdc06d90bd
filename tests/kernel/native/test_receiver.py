"""Native receive on real interfaces: the frames that use it, and those that are left alone."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Callable
from dataclasses import replace

import pytest
from overlay.core.native.state import NativeState
from overlay.kernel import netns
from overlay.kernel.bpf import numbers, syscall, tc_filters
from overlay.kernel.bpf.assembler import R0, Assembler
from overlay.kernel.bpf.hooks import tcx as tcx_hooks
from overlay.kernel.native import hooks
from overlay.kernel.native.receiver import remove_programs
from overlay.kernel.native.support import can_mix_versions, usable_interfaces
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import Mac, NodeId, ip_text, mac_for, parse_ip, parse_mac
from tests.kernel.conftest import Capture, World
from tests.kernel.native.conftest import (
    NODE,
    THREE,
    THREE_IPV6,
    TWO,
    Native,
    PairMaker,
    give_ipv6,
)
from tests.kernel.native.packets import VxlanPacket
from tests.kernel.native.streams import DATA, set_offload, stream

pytestmark = [pytest.mark.netns, pytest.mark.kernels]


@pytest.mark.parametrize("inner", [4, 6])
@pytest.mark.parametrize("outer", [4, 6])
def test_unicast_comes_by_the_shortcut(
    world: World, make_pair: PairMaker, outer: int, inner: int
) -> None:
    """Pings of each IP version, inside and outside, get replies past the VXLAN device."""
    pair = one, two = make_pair(outer)
    give_ipv6(world, pair)
    target = "10.32.0.3" if inner == 4 else ip_text(THREE_IPV6)
    assert world.pings(one.container, target, count=2) == 2  # ARP comes by the device
    before = [(each.received("vxlan0"), each.received("native0")) for each in pair]

    assert world.pings(one.container, target, count=30) == 30

    after = [(each.received("vxlan0"), each.received("native0")) for each in pair]
    by_device = [now[0] - then[0] for now, then in zip(after, before, strict=True)]
    by_shortcut = [now[1] - then[1] for now, then in zip(after, before, strict=True)]
    if outer != inner and not can_mix_versions():
        assert min(by_device) >= 30
    else:
        assert min(by_shortcut) >= 30
        assert max(by_device) < 30  # ARP and neighbor discovery come by it at any time
    assert two.differences() == []


@pytest.mark.parametrize("on", [True, False])
def test_streams_arrive_whole(world: World, pair: tuple[Native, Native], on: bool) -> None:
    """TCP in large segments, or with checksums by software, arrives as it was sent."""
    one, two = pair
    for native in pair:
        set_offload(world, native.container, on=on)
    before = two.received("native0")
    assert stream(world, one.container, two.container, THREE) == DATA
    assert two.received("native0") > before


def test_a_frame_for_the_bridge_takes_the_device(world: World, pair: tuple[Native, Native]) -> None:
    """Frames left to the bridge arrive as if the VXLAN device had received them."""
    one, two = pair
    two.is_target = False
    assert two.converge() == []
    before = two.received("native0"), two.received("br0")

    assert world.pings(one.container, "10.32.0.3", count=10) == 10

    assert two.received("native0") - before[0] >= 10


def underlay_mac(native: Native) -> Mac:
    """Return the MAC of a host's interface on the underlay."""
    shown = native.host.world.run(native.host.name, "ip", "-j", "link", "show", "eth1")
    return parse_mac(json.loads(shown)[0]["address"])


def send(pair: tuple[Native, Native], packet: VxlanPacket) -> None:
    """Send a packet from the second host's interface to the first host's."""
    one, two = pair
    frame = packet.frame(underlay_mac(one), underlay_mac(two))
    with netns.inside(two.host.world.fd(two.host.name)):
        raw = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
    with raw:
        raw.bind(("eth1", 0))
        raw.send(frame)


def genuine(pair: tuple[Native, Native]) -> VxlanPacket:
    """Return a packet as the second host would send it for its container."""
    one, two = pair
    macs = mac_for(one.host.vni, TWO) + mac_for(one.host.vni, THREE)
    vteps = two.host.underlay, one.host.underlay
    return VxlanPacket(one.host.vni, *vteps, macs, THREE + TWO)


STRANGERS = {4: parse_ip("192.168.56.99"), 6: parse_ip("fd56::99")}
STRANGER = STRANGERS[4]
BROADCAST = b"\xff" * 6
_OF_IPV4 = frozenset({"fragment", "options", "spoiled"})
FORGERIES: tuple[dict[str, int | bytes], ...] = (
    {"source": STRANGER},
    {"destination": STRANGER},
    {"vni": 77},
    {"flags": 0x08000001},
    {"flags": 0x88000000},
    {"flags": 0},
    {"reserved": 1},
    {"port": 4790},
    {"ecn": 3, "inner_ecn": 2},
    {"ecn": 1, "inner_ecn": 2},
    {"fragment": 0x2000},
    {"fragment": 0x0001},
    {"options": bytes(4)},
    {"spoiled": 1},
    {"cut": 8},
    {"inner_type": 0x0806},
    {"inner_type": 0x8100},
    {"macs": BROADCAST + bytes(6)},
)


@pytest.mark.parametrize("outer", [4, 6])
def test_other_packets_are_left_alone(
    make_pair: PairMaker, world: World, capture: Callable[[str, str], Capture], outer: int
) -> None:
    """A packet that differs from a member's plain one is not taken, but left to the filter."""
    if outer == 6 and not can_mix_versions():
        pytest.skip("this kernel takes no IPv4 out of IPv6 (Linux 6.3)")
    pair = make_pair(outer)
    seen = capture(pair[0].host.sandbox.name, "native0")
    payloads: list[bytes] = []
    for number, given in enumerate(FORGERIES):
        if outer == 6 and _OF_IPV4.intersection(given):
            continue
        strange = {name: STRANGERS[outer] for name, value in given.items() if value == STRANGER}
        change = {**given, **strange}
        forged = replace(genuine(pair), payload=b"forged %d" % number)
        send(pair, replace(forged, **change))  # type: ignore[arg-type]
    send(pair, replace(genuine(pair), payload=b"genuine"))

    def has_come() -> bool:
        payloads.extend(frame[42:] for frame in seen.frames())
        return b"genuine" in payloads

    world.wait_until(has_come, "the genuine packet")
    taken = [text for text in payloads if text.startswith(b"forged ")]
    assert [FORGERIES[int(text.split()[1])] for text in taken] == []


def test_plain_packets_are_taken_whatever_their_ecn(
    pair: tuple[Native, Native], world: World
) -> None:
    """A packet whose inner ECN field does not change comes by the shortcut, and unchanged."""
    one, _ = pair
    with netns.inside(world.fd(one.container)):
        server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with server:
        server.bind((ip_text(TWO), 7777))
        server.settimeout(20)
        server.setsockopt(socket.IPPROTO_IP, socket.IP_RECVTOS, 1)
        for outer, inner in ((0, 0), (0, 1), (2, 2), (2, 0), (2, 1), (3, 3), (1, 1)):
            send(pair, replace(genuine(pair), ecn=outer, inner_ecn=inner))
            payload, ancillary, _, _ = server.recvmsg(100, 100)
            assert payload == b"forged"
            assert [data[0] for _, _, data in ancillary] == [inner]
    assert one.received("native0") >= 7


def test_a_member_by_another_interface_is_left_alone(
    pair: tuple[Native, Native], world: World
) -> None:
    """A member's packets are taken only from an interface where they may come."""
    one, _ = pair
    wanted = one.wanted()
    elsewhere = frozenset(path._replace(interface=1) for path in wanted.paths)
    one.receiver.write(wanted, replace(wanted, paths=elsewhere))
    before = one.received("native0")

    assert world.pings(one.container, "10.32.0.3", count=5) == 5

    assert one.received("native0") < before + 5


def test_a_shortcut_that_is_gone_loses_nothing(pair: tuple[Native, Native], world: World) -> None:
    """Frames take the VXLAN device, also if nobody makes another one."""
    one, _ = pair
    world.run(one.host.sandbox.name, "ip", "link", "del", "native0")
    assert world.pings(one.container, "10.32.0.3", count=5) == 5


def test_what_is_written_is_read_back(pair: tuple[Native, Native]) -> None:
    """The state is read as it was written, and so is a change of it, up to nothing."""
    one, _ = pair
    wanted = one.wanted()
    assert one.receiver.read() == wanted
    other = replace(
        wanted,
        own=wanted.own | {parse_ip("fd56::11")},
        vnis=frozenset(each._replace(shortcut=one.index("eth1")) for each in wanted.vnis),
    )
    one.receiver.write(wanted, other)
    assert one.receiver.read() == other
    one.receiver.write(other, NativeState())
    assert one.receiver.read() == NativeState()


needs_tcx = pytest.mark.skipif(not tcx_hooks.has_tcx(), reason="needs Linux 6.6")


@pytest.fixture
def without_tcx(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have programs run at tc's hooks, as before Linux 6.6."""
    monkeypatch.setattr(tcx_hooks, "has_tcx", lambda: False)


def clsact_of(native: Native) -> bool:
    """Return whether the underlay's interface has hooks."""
    shown = native.host.world.run(native.host.name, "tc", "qdisc", "show", "dev", "eth1")
    return "clsact" in shown


@pytest.mark.usefixtures("without_tcx")
def test_the_hooks_go_with_the_last_filter(pair: tuple[Native, Native]) -> None:
    """Without the programs the interface has nothing of overlayd's, whoever removes them."""
    one, two = pair
    one.receiver.remove()
    assert not clsact_of(one)
    assert clsact_of(two)
    with netns.inside(two.host.world.fd(two.host.name)):
        assert remove_programs(NODE) == ["native path's program on eth1"]
        assert not clsact_of(two)
    two.receive()
    with netns.inside(two.host.world.fd(two.host.name)), NetlinkSocket() as inside:
        assert hooks.remove_all(inside) == ["native path's program on eth1"]
        assert not clsact_of(two)


@needs_tcx
def test_tcx_needs_no_discipline_and_leaves_nothing(pair: tuple[Native, Native]) -> None:
    """Another program on the interface stays, whoever removes overlayd's."""
    one, two = pair
    assert not clsact_of(one)
    program = Assembler()
    program.set(R0, numbers.PASS)
    program.exit()
    descriptor = syscall.load(program.code(), "other")
    with netns.inside(one.host.world.fd(one.host.name)):
        syscall.attach(descriptor, one.index("eth1"))
        os.close(descriptor)
        one.receiver.remove()
        names = [syscall.program_name(each) for each in syscall.attached(one.index("eth1"))]
        assert names == ["other"]
    with netns.inside(two.host.world.fd(two.host.name)), NetlinkSocket() as inside:
        assert hooks.remove_all(inside) == ["native path's program on eth1"]
        assert hooks.remove_all(inside) == []


@pytest.mark.usefixtures("without_tcx")
def test_others_hooks_and_filters_stay(pair: tuple[Native, Native], world: World) -> None:
    """Hooks that were there before stay, and those that another program has filters at."""
    one, two = pair
    program = Assembler()
    program.set(R0, numbers.PASS)
    program.exit()
    descriptor = syscall.load(program.code(), "other")
    with NetlinkSocket(world.fd(one.host.name)) as inside:
        index = one.index("eth1")
        inside.request(tc_filters.put_filter(index, descriptor, "other", leaving=True))
    os.close(descriptor)
    two.receiver.remove()
    world.run(two.host.name, "tc", "qdisc", "add", "dev", "eth1", "clsact")
    two.receive()
    for native in pair:
        native.receiver.remove()
        assert clsact_of(native)


def test_agents_of_one_host_keep_each_others(pair: tuple[Native, Native], world: World) -> None:
    """Another node's program on the same interface stays when this node's goes, and works."""
    one, _ = pair
    first = one.receiver
    one.open(NodeId(bytes(range(2, 18))))
    one.receive()
    assert first.read() == one.wanted()

    first.remove()

    before = one.received("native0")
    assert world.pings(one.container, "10.32.0.3", count=5) == 5
    assert one.received("native0") - before >= 5


@pytest.mark.parametrize("tcx", [pytest.param(True, marks=needs_tcx), False])
def test_the_next_agent_replaces_the_program(
    make_pair: PairMaker, world: World, monkeypatch: pytest.MonkeyPatch, *, tcx: bool
) -> None:
    """A dead agent's program goes on, and its successor's takes its place without a lost ping."""
    monkeypatch.setattr(tcx_hooks, "has_tcx", lambda: tcx)
    one, _ = make_pair(4)
    one.receiver.close()
    before = one.received("vxlan0")
    assert world.pings(one.container, "10.32.0.3", count=10) == 10

    one.open()
    assert one.receiver.read() == NativeState()
    one.receive()

    assert one.receiver.read() == one.wanted()
    assert world.pings(one.container, "10.32.0.3", count=10) == 10
    assert one.received("vxlan0") == before
    one.receiver.remove()
    assert not clsact_of(one)


def test_interfaces_without_ethernet_are_not_usable(world: World) -> None:
    """An interface without Ethernet headers is named; one that is gone is left out."""
    name = world.namespace("n")
    world.run(name, "ip", "link", "add", "eth9", "index", "9", "type", "veth", "peer", "eth8")
    with netns.inside(world.fd(name)):
        found = usable_interfaces([1, 9, 99])
    assert found == {1: "lo is no Ethernet interface", 9: ""}
