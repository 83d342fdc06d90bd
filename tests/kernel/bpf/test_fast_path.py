"""The fast path on real interfaces: the frames that use it or do not."""

from __future__ import annotations

import json
import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.operations import DeleteRow
from overlay.core.dataplane.port_security import DEFAULT_TARGET_MAC
from overlay.core.dataplane.state import HookRow, Row, SandboxState, SourceRow, TargetRow
from overlay.kernel import netns
from overlay.kernel.bpf import syscall
from overlay.kernel.bpf.assembler import R0, R1, R10, WORD, Assembler
from overlay.kernel.bpf.fast_path import FastPath
from overlay.kernel.sandbox import gratuitous_arp, veth
from overlay.kernel.sandbox.operation_failure import OperationFailure
from overlay.kernel.sandbox.traffic import read_traffic
from overlay.model import Ip, gateway_mac, mac_for, mac_text, parse_ip

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.conftest import Capture, Host, World

pytestmark = pytest.mark.netns
TWO, THREE, FOUR = (parse_ip(f"10.32.0.{last}") for last in (2, 3, 4))


@dataclass
class Fast:
    """A host whose sandbox has a fast path."""

    host: Host
    endpoints: dict[str, Ip]  # by port

    def desired(self) -> SandboxState:
        """Return the planned state, including the rows of the fast path."""
        planned = self.host.desired()
        vni = self.host.vni
        rows: set[Row] = {
            HookRow(0, "vxlan0"),
            HookRow(0, "br0"),
            TargetRow(DEFAULT_TARGET_MAC, 0, "vxlan0"),
            TargetRow(gateway_mac(vni, 0), 0, "br0"),
        }
        for port, ip in self.endpoints.items():
            mac = mac_for(vni, ip)
            rows |= {HookRow(0, port), TargetRow(mac, 0, port), SourceRow(ip, mac, port)}
        return SandboxState(planned.links, planned.rows | rows)

    def converge(self) -> list[OperationFailure]:
        """Run one reconcile pass."""
        return self.host.sandbox.apply(diff(self.desired(), self.host.sandbox.read(), prune=True))

    def differences(self) -> list[str]:
        """Return the operations of a further pass."""
        return [str(each) for each in diff(self.desired(), self.host.sandbox.read(), prune=True)]

    def bridged(self, port: str) -> int:
        """Return how many frames the bridge has sent through a port."""
        shown = self.host.world.run(self.host.sandbox.name, "ip", "-s", "-j", "link", "show", port)
        (link,) = json.loads(shown)
        found: int = link["stats64"]["tx"]["packets"]
        return found


@pytest.fixture
def cluster(world: World) -> tuple[Fast, Fast, str, str, str]:
    """Create two hosts with fast paths.

    Containers .2 and .4 are on the first, .3 is on the second.
    """
    one = world.host("192.168.56.11")
    two = world.host("192.168.56.12")
    for host in (one, two):
        host.sandbox.fast_path = FastPath()
        assert host.converge() == []
    world.pair(one, two)
    first, second = world.plug(one, two)
    fourth = one.attach(FOUR)
    two.remotes.append((FOUR, one.underlay))
    fast = Fast(one, {"p0": TWO, "p1": FOUR}), Fast(two, {"p0": THREE})
    for each in fast:
        assert each.converge() == []
    return (*fast, first, second, fourth)


def test_a_second_pass_has_nothing_to_do(cluster: tuple[Fast, Fast, str, str, str]) -> None:
    """Maps, programs and hooks are read back exactly as they were written."""
    assert [fast.differences() for fast in cluster[:2]] == [[], []]


def test_unicast_bypasses_the_bridge(
    cluster: tuple[Fast, Fast, str, str, str], world: World
) -> None:
    """Pings get replies, and the ports' counters do not change.

    So the bridge has sent nothing to a container.
    """
    one, two, first, second, _ = cluster
    assert world.pings(first, "10.32.0.3", count=2) == 2  # ARP goes by the bridge
    assert world.pings(first, "10.32.0.4", count=2) == 2
    before = (one.bridged("p0"), one.bridged("p1"), two.bridged("p0"))

    assert world.pings(first, "10.32.0.3", count=50) == 50
    assert world.pings(second, "10.32.0.2", count=50) == 50
    assert world.pings(first, "10.32.0.4", count=50) == 50

    after = (one.bridged("p0"), one.bridged("p1"), two.bridged("p0"))
    assert [now - then for now, then in zip(after, before, strict=True)] == [0, 0, 0]


def test_traffic_past_the_bridge_is_counted(
    cluster: tuple[Fast, Fast, str, str, str], world: World
) -> None:
    """Frames of the fast path count at the VTEP, and both ways at the container."""
    one, _, first, _, _ = cluster
    assert world.pings(first, "10.32.0.3", count=2) == 2
    before = read_traffic(one.host.sandbox.socket)

    assert world.pings(first, "10.32.0.3", count=50) == 50

    after = read_traffic(one.host.sandbox.socket)
    assert before.tunnel is not None
    assert after.tunnel is not None
    grown = after.tunnel.since(before.tunnel), after.ports["p0"].since(before.ports["p0"])
    for each in grown:
        assert each.transmit_packets >= 50
        assert each.transmit_bytes >= 50 * 84
    assert grown[0].receive_packets >= 50
    if counts_redirected_frames():
        assert grown[1].receive_packets >= 50


def counts_redirected_frames() -> bool:
    """Return whether this kernel counts frames that eBPF hands to a container (Linux 6.8)."""
    return tuple(map(int, os.uname().release.split(".")[:2])) >= (6, 8)


def test_without_the_fast_path_the_bridge_forwards(
    cluster: tuple[Fast, Fast, str, str, str], world: World
) -> None:
    """Without the fast path, the same pings pass the bridge."""
    one, two, first, _, _ = cluster
    for fast in (one, two):
        fast.host.sandbox.fast_path = None
        assert fast.host.converge() == []
        assert fast.host.differences() == []
    before = one.bridged("p0")

    assert world.pings(first, "10.32.0.3", count=20) == 20

    assert one.bridged("p0") - before >= 20


def test_the_gateway_and_large_packets_are_reached(
    cluster: tuple[Fast, Fast, str, str, str], world: World
) -> None:
    """Packets that the fast path leaves to the bridge arrive.

    They are packets to the gateway, fragments and broadcasts.
    """
    _, _, first, _, _ = cluster
    assert world.pings(first, "10.32.0.1") == 1
    assert world.pings(first, "10.32.0.3", "-s", "4000") == 1
    assert world.pings(first, "10.32.0.3", "-s", "1400", "-M", "do") == 1


def test_a_spoofed_source_is_left_to_the_bridge(
    cluster: tuple[Fast, Fast, str, str, str], world: World
) -> None:
    """A packet from another port's address goes to the bridge.

    The bridge's filter drops it. One from the port's own address does not.
    """
    one, _, first, _, fourth = cluster
    world.run(first, "ip", "address", "add", "10.32.0.77/16", "dev", "eth0")
    assert world.pings(first, "10.32.0.4") == 1
    assert world.pings(first, "10.32.0.4", "-I", "10.32.0.77") == 1
    before = one.bridged("p1")

    assert world.pings(first, "10.32.0.4", count=10) == 10
    own = one.bridged("p1") - before
    assert world.pings(first, "10.32.0.4", "-I", "10.32.0.77", count=10) == 10

    assert own == 0
    assert one.bridged("p1") - before >= 10
    assert world.pings(fourth, "10.32.0.2") == 1


@pytest.mark.parametrize("text", ["10.32.200.200", "fd32::200"])
def test_an_announcement_reaches_containers_of_other_hosts(
    cluster: tuple[Fast, Fast, str, str, str],
    world: World,
    capture: Callable[[str, str], Capture],
    text: str,
) -> None:
    """A moved address is known there at once, and nothing is sent a second time.

    Not so without the hook of the bridge.
    """
    one, _, first, second, _ = cluster
    ip, mac = parse_ip(text), mac_for(one.host.vni, TWO)
    for each in (first, second):
        world.run(each, "sysctl", "-w", "net.ipv6.conf.eth0.disable_ipv6=0")
    known = ("ip", "neigh", "replace", text, "lladdr", "02:00:00:00:00:99", "dev", "eth0")
    world.run(second, *known, "nud", "stale")

    announcement = gratuitous_arp.announcement_frame(ip, mac)

    def announce() -> None:
        with netns.inside(world.fd(first)), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
            raw.bind(("eth0", 0))
            raw.send(announcement)

    def is_known() -> bool:
        shown = world.run(second, "ip", "neigh", "show", text)
        return mac_text(mac) in shown

    wire = capture(one.host.name, "eth1")  # on which the containers' own discovery may be, too
    announce()
    world.wait_until(is_known, "the new MAC")
    assert [frame for _, frame in wire.inner()].count(announcement) == 1
    world.run(second, *known, "nud", "stale")
    world.run(one.host.sandbox.name, "tc", "filter", "del", "dev", "br0", "ingress")
    announce()
    assert world.pings(first, "10.32.0.3", "-s", "4000") == 1  # later than the announcement
    assert not is_known()


def test_the_fast_path_survives_the_agent(
    cluster: tuple[Fast, Fast, str, str, str], world: World
) -> None:
    """With the descriptors closed, frames still use the fast path.

    The next agent replaces the programs with its own without losing a ping.
    """
    one, two, first, _, _ = cluster
    assert world.pings(first, "10.32.0.3") == 1
    assert one.host.sandbox.fast_path is not None
    one.host.sandbox.fast_path.close()
    before = one.bridged("p0")
    assert world.pings(first, "10.32.0.3", count=20) == 20
    assert one.bridged("p0") == before

    one.host.sandbox.fast_path = FastPath()
    assert any("program of segment 0 on p0" in text for text in one.differences())
    assert one.converge() == []
    assert one.differences() == []
    assert world.pings(first, "10.32.0.3", count=20) == 20
    assert one.bridged("p0") == before
    assert two.differences() == []


@pytest.mark.parametrize(
    "sabotage",
    [
        ("tc", "qdisc", "del", "dev", "p0", "clsact"),
        ("tc", "filter", "del", "dev", "vxlan0", "ingress"),
        ("tc", "filter", "del", "dev", "br0", "ingress"),
    ],
)
def test_removed_hooks_are_detected_and_restored(
    cluster: tuple[Fast, Fast, str, str, str], world: World, sabotage: tuple[str, ...]
) -> None:
    """Removed hooks are differences, and one pass restores them."""
    one = cluster[0]
    world.run(one.host.sandbox.name, *sabotage)

    assert one.differences() != []
    assert one.converge() == []
    assert one.differences() == []


def test_a_detached_container_is_not_a_target(
    cluster: tuple[Fast, Fast, str, str, str], world: World
) -> None:
    """After a detach its MAC is in no map; frames for it go to the bridge."""
    one = cluster[0]
    world.run(one.host.sandbox.name, "ip", "link", "del", "p1")
    one.host.ports.remove("p1")
    del one.endpoints["p1"]

    assert any("del" in text and "fast path" in text for text in one.differences())
    assert one.converge() == []
    assert one.differences() == []


def test_ipv6_data_uses_it_but_neighbor_discovery_does_not(
    cluster: tuple[Fast, Fast, str, str, str], world: World
) -> None:
    """IPv6 addresses are sources of their own.

    ICMPv6 goes to the bridge, UDP bypasses it.
    """
    one = cluster[0]
    mac = mac_for(one.host.vni, TWO)
    ip = parse_ip("fd00::2")
    assert one.host.sandbox.fast_path is not None
    index = one.host.sandbox.link_index("p0")
    one.host.sandbox.fast_path.put(SourceRow(ip, mac, "p0"), index)

    assert SourceRow(ip, mac, "p0") in one.host.sandbox.read().rows
    assert f"fast path del source fd00::2 {mac_text(mac)} at p0" in one.differences()
    assert world.pings(cluster[2], "10.32.0.3") == 1


def test_a_rejected_program_reports_the_verifiers_reason() -> None:
    """The error of a rejected program contains the verifier's finding."""
    program = Assembler()
    program.load(WORD, R0, R1, 2000)
    program.exit()

    with pytest.raises(OSError, match=r"invalid bpf_context access"):
        syscall.load(program.code(), "bad")


def test_instructions_are_encoded_as_the_kernel_documents_them() -> None:
    """Some instructions and a jump are encoded byte by byte.

    They are `r0 = -1; *(u32 *)(r10 - 8) = r0; exit`.
    """
    program = Assembler()
    program.set(R0, -1)
    program.store(WORD, R10, -8, R0)
    program.jump_equal(R0, 7, "end")
    program.set(R0, 1)
    program.label("end")
    program.exit()

    assert struct.unpack("<5Q", program.code()) == (
        0xFFFFFFFF_0000_00_B7,
        0x00000000_FFF8_0A_63,
        0x00000007_0001_00_15,
        0x00000001_0000_00_B7,
        0x00000000_0000_00_95,
    )


@pytest.mark.usefixtures("_capable")
def test_large_maps_are_read_completely() -> None:
    """More entries than fit one batch are each read once."""
    table = syscall.create_map(8, 8, 16_384, "test")
    try:
        for number in range(10_000):
            syscall.update(table, number.to_bytes(8, "big"), number.to_bytes(8, "little"))
        found = dict(syscall.entries(table, 8, 8))
    finally:
        os.close(table)

    assert len(found) == 10_000
    assert found[(77).to_bytes(8, "big")] == (77).to_bytes(8, "little")


def test_a_new_port_has_its_hooks_before_any_traffic(
    cluster: tuple[Fast, Fast, str, str, str], world: World
) -> None:
    """Hooks exist when an attach returns.

    The following pass only attaches programs. Adding hooks stops a link's queue for a moment, which
    would lose the first ARP reply.
    """
    one = cluster[0]
    one.host.attach(parse_ip("10.32.0.9"))
    shown = world.run(one.host.sandbox.name, "tc", "qdisc", "show", "dev", "p2")
    assert "clsact" in shown
    assert "clsact" in world.run(one.host.sandbox.name, "tc", "qdisc", "show", "dev", "vxlan0")


def test_a_detach_leaves_no_entry_behind(
    cluster: tuple[Fast, Fast, str, str, str], world: World
) -> None:
    """A port's entries are removed before the port, without a pass that reads."""
    one = cluster[0]
    mac = mac_for(one.host.vni, FOUR)
    rows: list[Row] = [HookRow(0, "p1"), TargetRow(mac, 0, "p1"), SourceRow(FOUR, mac, "p1")]
    assert one.host.sandbox.apply([DeleteRow(row) for row in rows]) == []
    assert veth.detach_interface(one.host.sandbox, "p1")
    one.host.ports.remove("p1")
    del one.endpoints["p1"]

    assert one.differences() == []
    assert world.pings(cluster[2], "10.32.0.3") == 1


@pytest.mark.parametrize("gone", ["vxlan0", "br0", "p9"])
def test_entries_of_interfaces_that_are_gone_are_removed(
    cluster: tuple[Fast, Fast, str, str, str], gone: str
) -> None:
    """An entry for a missing interface is named by its index, and is deleted."""
    one = cluster[0]
    fast = one.host.sandbox.fast_path
    assert fast is not None
    mac = mac_for(one.host.vni, parse_ip("10.32.7.7"))
    fast.put(TargetRow(mac, 0, gone), 9_999)
    fast.put(SourceRow(FOUR, mac, gone), 9_999)
    stale: set[Row] = {TargetRow(mac, 0, "#9999"), SourceRow(FOUR, mac, "#9999")}

    assert stale <= one.host.sandbox.read().rows
    assert one.host.sandbox.apply([DeleteRow(row) for row in stale]) == []
    assert one.differences() == []
