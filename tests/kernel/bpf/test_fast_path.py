"""The fast path on real interfaces: which frames take it, and what it leaves alone."""

from __future__ import annotations

import json
import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.diff import diff
from overlay.core.dataplane.operations import DeleteRow
from overlay.core.dataplane.port_policy import DEFAULT_TARGET_MAC
from overlay.core.dataplane.state import HookRow, Row, SandboxState, SourceRow, TargetRow
from overlay.kernel.bpf import syscall
from overlay.kernel.bpf.assembler import R0, R1, R10, WORD, Assembler
from overlay.kernel.bpf.fast_path import FastPath
from overlay.kernel.sandbox import veth
from overlay.kernel.sandbox.sandbox import OperationFailure
from overlay.model import Ip, gateway_mac, mac_for, mac_text, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import Host, World

pytestmark = pytest.mark.netns
TWO, THREE, FOUR = (parse_ip(f"10.32.0.{last}") for last in (2, 3, 4))


@dataclass
class Fast:
    """A host whose sandbox has a fast path."""

    host: Host
    endpoints: dict[str, Ip]  # by port

    def desired(self) -> SandboxState:
        """Return the plan with the fast path's rows."""
        planned = self.host.desired()
        vni = self.host.vni
        rows: set[Row] = {
            HookRow(0, "vxlan0"),
            TargetRow(DEFAULT_TARGET_MAC, 0, "vxlan0"),
            TargetRow(gateway_mac(vni, 0), 0, "br0"),
        }
        for port, ip in self.endpoints.items():
            mac = mac_for(vni, ip)
            rows |= {HookRow(0, port), TargetRow(mac, 0, port), SourceRow(ip, mac, port)}
        return SandboxState(planned.links, planned.rows | rows)

    def converge(self) -> list[OperationFailure]:
        """Make one pass."""
        return self.host.sandbox.apply(diff(self.desired(), self.host.sandbox.read(), prune=True))

    def differences(self) -> list[str]:
        """Return what a further pass would do."""
        return [str(each) for each in diff(self.desired(), self.host.sandbox.read(), prune=True)]

    def bridged(self, port: str) -> int:
        """Return how many frames the bridge has handed to the container behind a port."""
        shown = self.host.world.run(self.host.sandbox.name, "ip", "-s", "-j", "link", "show", port)
        (link,) = json.loads(shown)
        found: int = link["stats64"]["tx"]["packets"]
        return found


@pytest.fixture
def cluster(world: World) -> tuple[Fast, Fast, str, str, str]:
    """Two hosts with fast paths; containers .2 and .4 on the first, .3 on the second."""
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
    """Maps, programs and hooks read back exactly as they were written."""
    assert [fast.differences() for fast in cluster[:2]] == [[], []]


def test_unicast_is_spared_the_bridge(
    cluster: tuple[Fast, Fast, str, str, str], world: World
) -> None:
    """Pings between hosts and on one host are answered, and the ports' senders stand still:
    nothing was handed to a container by way of the bridge."""
    one, two, first, second, _ = cluster
    assert world.pings(first, "10.32.0.3", count=2) == 2  # ARP goes by the bridge
    assert world.pings(first, "10.32.0.4", count=2) == 2
    before = (one.bridged("p0"), one.bridged("p1"), two.bridged("p0"))

    assert world.pings(first, "10.32.0.3", count=50) == 50
    assert world.pings(second, "10.32.0.2", count=50) == 50
    assert world.pings(first, "10.32.0.4", count=50) == 50

    after = (one.bridged("p0"), one.bridged("p1"), two.bridged("p0"))
    assert [now - then for now, then in zip(after, before, strict=True)] == [0, 0, 0]


def test_without_it_the_bridge_carries_the_same(
    cluster: tuple[Fast, Fast, str, str, str], world: World
) -> None:
    """Taken away, the same pings go by the bridge: what the counters prove is real."""
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
    """What the fast path leaves to the bridge arrives as ever: gateway, fragments, broadcast."""
    _, _, first, _, _ = cluster
    assert world.pings(first, "10.32.0.1") == 1
    assert world.pings(first, "10.32.0.3", "-s", "4000") == 1
    assert world.pings(first, "10.32.0.3", "-s", "1400", "-M", "do") == 1


def test_a_borrowed_source_is_left_to_the_bridge(
    cluster: tuple[Fast, Fast, str, str, str], world: World
) -> None:
    """A packet from an address that is not the port's own goes by the bridge, whose filter is
    to judge it; one from the own address does not."""
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


def test_losing_the_agent_leaves_it_working(
    cluster: tuple[Fast, Fast, str, str, str], world: World
) -> None:
    """Descriptors closed, as at the agent's death: frames still take the fast path; the next
    agent puts its own programs in their place without losing a ping."""
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
    ],
)
def test_what_is_taken_away_is_found_and_put_back(
    cluster: tuple[Fast, Fast, str, str, str], world: World, sabotage: tuple[str, ...]
) -> None:
    """Hooks removed from outside are differences, and one pass repairs them."""
    one = cluster[0]
    world.run(one.host.sandbox.name, *sabotage)

    assert one.differences() != []
    assert one.converge() == []
    assert one.differences() == []


def test_a_container_that_is_gone_is_no_target(
    cluster: tuple[Fast, Fast, str, str, str], world: World
) -> None:
    """After a detach its MAC is in no map: frames for it go where the bridge sends them."""
    one = cluster[0]
    world.run(one.host.sandbox.name, "ip", "link", "del", "p1")
    one.host.ports.remove("p1")
    del one.endpoints["p1"]

    assert any("del" in text and "fast path" in text for text in one.differences())
    assert one.converge() == []
    assert one.differences() == []


def test_ipv6_data_takes_it_and_neighbour_discovery_does_not(
    cluster: tuple[Fast, Fast, str, str, str], world: World
) -> None:
    """IPv6 addresses are sources of their own; ICMPv6 goes by the bridge, UDP spares it."""
    one = cluster[0]
    mac = mac_for(one.host.vni, TWO)
    ip = parse_ip("fd00::2")
    assert one.host.sandbox.fast_path is not None
    index = one.host.sandbox.link_index("p0")
    one.host.sandbox.fast_path.put(SourceRow(ip, mac, "p0"), index)

    assert SourceRow(ip, mac, "p0") in one.host.sandbox.read().rows
    assert f"fast path del source fd00::2 {mac_text(mac)} at p0" in one.differences()
    assert world.pings(cluster[2], "10.32.0.3") == 1


def test_a_refused_program_comes_with_the_verifiers_words() -> None:
    """The reason of a refusal names what the verifier found."""
    program = Assembler()
    program.load(WORD, R0, R1, 2000)
    program.exit()

    with pytest.raises(OSError, match=r"invalid bpf_context access"):
        syscall.load(program.code(), "bad")


def test_instructions_are_encoded_as_the_kernel_documents_them() -> None:
    """`r0 = -1; *(u32 *)(r10 - 8) = r0; exit` and a jump, byte by byte."""
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
def test_large_maps_read_back_whole() -> None:
    """More entries than one batch holds come back each once."""
    table = syscall.create_map(8, 8, 16_384, "test")
    try:
        for number in range(10_000):
            syscall.update(table, number.to_bytes(8, "big"), number.to_bytes(8, "little"))
        found = dict(syscall.entries(table, 8, 8))
    finally:
        os.close(table)

    assert len(found) == 10_000
    assert found[(77).to_bytes(8, "big")] == (77).to_bytes(8, "little")


def test_a_new_port_has_its_hooks_before_anything_passes(
    cluster: tuple[Fast, Fast, str, str, str], world: World
) -> None:
    """Adding hooks stops a link's queue for a moment, and the first ARP answer with it: so they
    are there when the attach returns, and the pass that follows only runs programs on them."""
    one = cluster[0]
    one.host.attach(parse_ip("10.32.0.9"))
    shown = world.run(one.host.sandbox.name, "tc", "qdisc", "show", "dev", "p2")
    assert "clsact" in shown
    assert "clsact" in world.run(one.host.sandbox.name, "tc", "qdisc", "show", "dev", "vxlan0")


def test_a_detach_leaves_no_entry_behind(
    cluster: tuple[Fast, Fast, str, str, str], world: World
) -> None:
    """What leads to a port is removed before the port goes: no pass that reads is needed."""
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
    """Whatever such an entry led to, it has the interface's number for a name, and goes."""
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
