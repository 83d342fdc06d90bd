"""The gate as a state: read, repaired after others' changes, taken over, and removed."""

from __future__ import annotations

import itertools
import json
import os
import re
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from overlay import failpoint
from overlay.core.gate.port_block import USUAL_BLOCK
from overlay.core.gate.state import GateState
from overlay.kernel import netns, reset
from overlay.kernel.bpf import numbers, syscall, tc_filters
from overlay.kernel.bpf.assembler import R0, Assembler
from overlay.kernel.bpf.hooks import tcx
from overlay.kernel.bpf.hooks.owner import EGRESS, INGRESS
from overlay.kernel.gate import hooks, loopback
from overlay.kernel.gate.gate import kept_block, refusal, remove_gate
from overlay.kernel.gate.maps import GatedPorts
from overlay.kernel.gate.namespace import namespace_name
from overlay.kernel.gate.pairs import end_name
from overlay.kernel.gate.programs import parts
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import NodeId, parse_ip
from tests.kernel.gate.conftest import (
    BLOCK,
    FAR,
    NEAR,
    NODE,
    OWN,
    TCP_PORT,
    Gated,
    GateThere,
    gated_hosts,
)
from tests.kernel.gate.traffic import Traffic

pytestmark = [pytest.mark.netns, pytest.mark.kernels]
OTHER_NODE = NodeId(bytes(range(64, 80)))


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(True, marks=pytest.mark.skipif(not tcx.has_tcx(), reason="needs Linux 6.6")),
        False,
    ],
    ids=["tcx", "tc"],
)
def gated(request: pytest.FixtureRequest, _capable: None) -> Iterator[Gated]:
    """Return the hosts, whose programs run at tcx, or at tc's hooks, as before Linux 6.6."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tcx, "has_tcx", lambda: request.param)
        with gated_hosts() as made:
            yield made


def require_traffic(traffic: Traffic) -> None:
    """Require that a container reaches others, and others a published port."""
    for version in (4, 6):
        assert traffic.ask_tcp("one", FAR[version], 9000) == OWN[version]
        assert traffic.ask_tcp("far", OWN[version], TCP_PORT) == FAR[version]
        assert traffic.ask_tcp("h1", OWN[version], TCP_PORT)


def end_of(gated: Gated, link: str = "cable") -> str:
    """Return the name of a pair's end in the host's namespace."""
    return end_name(NODE, gated.interface(link, "outside").interface_index)


def newest(gated: Gated) -> GateThere:
    """Return the gate of the agent that runs."""
    return gated.opened[-1]


def test_the_kernel_can() -> None:
    """What is asked before a gate is planned."""
    assert refusal(NODE) == ""


def test_nothing_is_read_before_it_is_written(gated: Gated) -> None:
    """A predecessor's programs are not this object's."""
    with closing(GateThere(gated.fd("h1"), NODE)) as gate:
        assert gate.read() == GateState()


@pytest.mark.parametrize(
    ("who", "command"),
    [
        ("h1", "ip link del END"),
        ("h1", "ip link set END down"),
        ("h1", "ip link set END mtu 1400"),
        ("h1", "sysctl -qw net.ipv4.conf.lo.accept_local=0"),
        ("gate", "ip link set ovh down"),
        ("gate", "ip link set host_lo mtu 1300"),
        ("gate", "ip link set dev cable address 02:00:00:00:00:99"),
        ("gate", "ip rule del iif ovh"),
        ("gate", "ip -6 rule del iif cable"),
        ("gate", "ip route flush table 1001"),
        ("gate", "ip -6 route del fd00:32::/64 table 1001"),
        ("gate", "ip route replace 10.32.0.0/16 via 169.254.77.1 dev host_lo onlink table 1001"),
        ("gate", "ip -6 neigh flush nud permanent"),
        ("gate", "ip address del 192.0.0.8/32 dev host_lo"),
        ("gate", "ip link del cable"),
    ],
)
def test_what_others_do_is_undone(gated: Gated, traffic: Traffic, who: str, command: str) -> None:
    """Whatever is done to a part of the gate is a difference, and one pass undoes it."""
    gate, wanted = newest(gated), gated.wanted()
    assert gate.read() == wanted
    gated.run(who, *command.replace("END", end_of(gated)).split())

    assert gate.read() != wanted
    assert gated.pass_over(gate) == wanted
    require_traffic(traffic)


@pytest.mark.parametrize("where", [INGRESS, EGRESS])
@pytest.mark.parametrize("link", ["cable", "ovh"])
def test_a_program_that_is_gone_comes_back(
    gated: Gated, traffic: Traffic, link: str, where: int
) -> None:
    """On each interface, for what it receives and sends."""
    gate, wanted = newest(gated), gated.wanted()
    index = gated.interface(link, "outside").interface_index
    with gated.hooks() as programs:
        place = (index, where)
        assert programs.at([place])[place]
        programs.delete(*place)
        assert not programs.at([place])[place]

    assert gate.read() != wanted
    assert gated.pass_over(gate) == wanted
    require_traffic(traffic)


def test_an_altered_map_is_filled_again(gated: Gated, traffic: Traffic) -> None:
    """Entries that are gone, or of nobody's plan, are a difference."""
    gate, wanted = newest(gated), gated.wanted()
    maps = gate._maps
    index = gated.interface("cable", "outside").interface_index
    changes: tuple[Callable[[], None], ...] = (
        lambda: maps.delete_own([parse_ip(OWN[6])]),
        lambda: maps.delete_own([parse_ip("127.0.0.1")]),
        lambda: maps.put_own([parse_ip("192.0.2.77")]),
        lambda: maps.delete_range(parse_ip("10.32.0.0"), 16),
        lambda: maps.put_bits(GatedPorts(BLOCK, frozenset({("tcp", 1)})), ()),
        lambda: maps.put_bits(GatedPorts(USUAL_BLOCK, wanted.published), wanted.networks),
        lambda: syscall.delete(maps.ends, index.to_bytes(4, "little")),
    )
    for change in changes:
        change()
        assert gate.read() != wanted
        assert gated.pass_over(gate) == wanted
    require_traffic(traffic)


def test_a_lost_name_is_given_again(gated: Gated, traffic: Traffic) -> None:
    """`ip netns del` costs no connection; the namespace still has the ports for the next agent."""
    gate, wanted = newest(gated), gated.wanted()
    assert kept_block(NODE) == BLOCK
    netns.remove(gated.names["gate"])

    assert gate.read() != wanted
    assert kept_block(NODE) is None
    assert gated.pass_over(gate) == wanted
    assert kept_block(NODE) == BLOCK
    require_traffic(traffic)


def test_an_interface_that_vanishes_is_no_failure(gated: Gated, traffic: Traffic) -> None:
    """Before and after it had a gate; its pair goes with the plan."""
    gate, wanted = newest(gated), gated.wanted()
    small = ("mtu", "1000")  # too small for IPv6
    gated.run("h1", "ip", "link", "add", "wan", *small, "type", "veth", "peer", "wan1")
    more = gated.interface("wan", "outside")
    with_more = replace(wanted, interfaces=wanted.interfaces | {more})
    gate.write(gate.read(), with_more)
    assert gate.read() == with_more

    gated.run("h1", "ip", "link", "del", "wan")
    gate.write(gate.read(), with_more)
    assert more not in gate.read().interfaces
    gate.write(gate.read(), wanted)

    assert gate.read() == wanted
    assert end_name(NODE, more.interface_index) not in gated.run("h1", "ip", "-o", "link")
    assert "wan" not in gated.run("gate", "ip", "rule")
    require_traffic(traffic)


def test_a_changed_plan_is_followed(gated: Gated, traffic: Traffic) -> None:
    """An MTU, a MAC, and a port that is published no more."""
    gate, wanted = newest(gated), gated.wanted()
    gated.run("h1", "ip", "link", "set", "ovh", "mtu", "1400")
    assert gated.pass_over(gate) == gated.wanted() != wanted
    routes = gated.run("gate", "ip", "route", "show", "table", "1001")
    assert re.search(r"10\.32\.0\.0/16 .*mtu lock 1400", routes)
    gated.run("h1", "ip", "link", "set", "ovh", "mtu", "1450")
    assert gated.pass_over(gate) == wanted

    less = replace(wanted, published=frozenset())
    gate.write(gate.read(), less)
    assert gate.read() == less
    with pytest.raises(ConnectionRefusedError):
        traffic.ask_tcp("far", OWN[4], TCP_PORT)
    assert gated.pass_over(gate) == wanted
    require_traffic(traffic)


def test_the_next_agent_takes_over(gated: Gated, traffic: Traffic) -> None:
    """Without a lost packet, and connections live on; the former one's end changes nothing."""
    traffic.serve("one", 7000, 7001)
    out = traffic.socket("one", socket.AF_INET, socket.SOCK_DGRAM)
    out.connect((FAR[4], 9001))
    lost: list[OSError] = []
    ended = threading.Event()

    def exchange() -> None:
        while not ended.is_set():
            try:
                out.send(b"q" * 100)
                out.recv(1000)
            except OSError as error:
                lost.append(error)
                return

    thread = threading.Thread(target=exchange)
    thread.start()
    former = newest(gated)
    gate = gated.open()
    assert gated.pass_over(gate) == gated.wanted()
    former.close()
    gated.opened.remove(former)
    ended.set()
    thread.join()

    assert lost == []
    assert gate.read() == gated.wanted()
    require_traffic(traffic)


def test_a_second_gate_is_refused(gated: Gated) -> None:
    """The agent that has one is not."""
    with netns.inside(gated.fd("h1")):
        assert refusal(OTHER_NODE) == "another agent on this host has a gate"
        assert refusal(NODE) == ""


def test_another_nodes_gate_stays(gated: Gated, traffic: Traffic) -> None:
    """Two agents on one host keep each other's, and each other's removal harms nobody."""
    gate, other = newest(gated), gated.open(OTHER_NODE)
    wanted = gated.wanted()
    assert gated.pass_over(other) == wanted
    assert gate.read() == wanted

    other.remove()
    other.close()
    gated.opened.remove(other)

    assert gate.read() == wanted
    require_traffic(traffic)


@contextmanager
def dropping(gated: Gated) -> Iterator[None]:
    """Have another program drop all that the cable brings, at the kind of hooks that gates use."""
    index = gated.interface("cable", "outside").interface_index
    program = Assembler()
    program.set(R0, numbers.DROP)
    program.exit()
    with netns.inside(gated.fd("h1")), NetlinkSocket() as host:
        descriptor = syscall.load(program.code(), "other")
        if tcx.has_tcx():
            syscall.attach(descriptor, index)
        else:
            host.transact([tc_filters.add_clsact(index)])  # refused if it is there
            host.request(tc_filters.put_filter(index, descriptor, "other"))
        try:
            yield
        finally:
            if tcx.has_tcx():
                syscall.detach(descriptor, index)
            else:
                host.request(tc_filters.delete_clsact(index))  # the gate's programs go as well
            os.close(descriptor)


@pytest.mark.parametrize("is_before", [True, False])
def test_others_programs_run_as_well(gated: Gated, traffic: Traffic, is_before: bool) -> None:
    """On the same hooks, before the gate's and after: what it does not take is theirs."""
    gate = newest(gated)
    index = gated.interface("cable", "outside").interface_index
    if is_before:
        with gated.hooks() as programs:
            for where in (EGRESS, INGRESS):
                programs.delete(index, where)
    with dropping(gated):
        assert gated.pass_over(gate) == gated.wanted()
        assert gated.world.pings(gated.names["h2"], OWN[4]) == 0
    assert gated.pass_over(gate) == gated.wanted()
    require_traffic(traffic)


def is_whole(monkeypatch: pytest.MonkeyPatch, number: int, work: Callable[[], None]) -> bool:
    """Have a piece of work end at a step, as with its process; return whether it has fewer."""
    passed = 0

    def point(_name: str) -> None:
        nonlocal passed
        passed += 1
        if passed == number:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(failpoint, "failpoint", point)
        try:
            work()
        except KeyboardInterrupt:
            return False
    return True


def test_a_crash_leaves_the_hosts_own_packets(
    gated: Gated, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended at any step, the host is reached at a port of the block; the next pass goes on."""
    newest(gated).remove()
    for number in itertools.count(1):
        gate = gated.open()
        gated.opened.remove(gate)
        state = gate.read()
        whole = is_whole(monkeypatch, number, partial(gate.write, state, gated.wanted()))
        for version in (4, 6):
            assert traffic.ask_tcp("h2", OWN[version], 20_000) == NEAR[version], number
        if number % 5 == 0:
            assert gated.pass_over(gate) == gated.wanted()
        gate.remove()
        gate.close()
        if whole:
            break
    assert number > 30


def test_a_removal_that_a_crash_ends_is_finished(
    gated: Gated, traffic: Traffic, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ended at any step, the host is reached as well, and the next agent leaves nothing."""
    for number in itertools.count(1):
        former = gated.open()
        gated.opened.remove(former)
        assert gated.pass_over(former) == gated.wanted()
        whole = is_whole(monkeypatch, number, former.remove)
        former.close()
        assert traffic.ask_tcp("h2", OWN[4], 20_000) == NEAR[4], number
        newest(gated).remove()
        assert_nothing_left(gated)
        if whole:
            break
    assert number > 5


def assert_nothing_left(gated: Gated) -> None:
    """No namespace, link or program, nor a parameter that a gate has changed."""
    assert not newest(gated).path.exists()
    links = json.loads(gated.run("h1", "ip", "-j", "link"))
    assert {each["ifname"] for each in links} == {"lo", "cable", "ovh", "ovi"}
    with netns.inside(gated.fd("h1")), NetlinkSocket() as host:
        assert hooks.remove_all(host) == []
    assert "clsact" not in gated.run("h1", "tc", "qdisc")
    assert gated.run("h1", "sysctl", "-n", "net.ipv4.conf.lo.accept_local").split() == ["0"]


def test_nothing_is_left(gated: Gated) -> None:
    """Neither links, programs and the namespace, nor what was changed on the loopback."""
    gate = newest(gated)
    gate.remove()
    gated.run("h1", "sysctl", "-qw", "net.ipv4.conf.lo.route_localnet=1")
    assert gated.pass_over(gate) == gated.wanted()
    gate.remove()

    assert_nothing_left(gated)
    assert gated.run("h1", "sysctl", "-n", "net.ipv4.conf.lo.route_localnet").split() == ["1"]
    gated.run("h1", "sysctl", "-qw", "net.ipv4.conf.lo.route_localnet=0")


def lo(gated: Gated) -> list[str]:
    """Return the parameters of the host's loopback that a gate changes."""
    names = [f"net.ipv4.conf.lo.{name}" for name in ("accept_local", "route_localnet")]
    return gated.run("h1", "sysctl", "-n", *names).split()


def test_a_gate_whose_namespace_others_deleted(gated: Gated, tmp_path: Path) -> None:
    """What it changed on the loopback is known, to a removal and to the next gate."""
    newest(gated).remove()
    for is_next in (False, True):
        with closing(GateThere(gated.fd("h1"), NODE, tmp_path)) as gate:
            assert gated.pass_over(gate) == gated.wanted()
        assert lo(gated) == ["1", "1"]
        netns.remove(gate.path.name)
        if is_next:
            with closing(GateThere(gated.fd("h1"), NODE, tmp_path)) as after:
                assert gated.pass_over(after) == gated.wanted()
                after.remove()
        else:
            with netns.inside(gated.fd("h1")):
                remove_gate(NODE, tmp_path)
        assert lo(gated) == ["0", "0"]
        assert list(tmp_path.iterdir()) == []


def test_a_gate_of_an_earlier_version_is_recorded(gated: Gated, tmp_path: Path) -> None:
    """Its namespace alone has the record, and the operator's parameters are none of it."""
    newest(gated).remove()
    gated.run("h1", "sysctl", "-qw", "net.ipv4.conf.lo.route_localnet=1")
    for run_dir in (None, tmp_path):
        with closing(GateThere(gated.fd("h1"), NODE, run_dir)) as gate:
            assert gated.pass_over(gate) == gated.wanted()
    netns.remove(gate.path.name)
    with netns.inside(gated.fd("h1")):
        assert loopback.restore_left(tmp_path) == ["ipv4/conf/lo/accept_local"]
        remove_gate(NODE, tmp_path)
    assert lo(gated) == ["0", "1"]
    gated.run("h1", "sysctl", "-qw", "net.ipv4.conf.lo.route_localnet=0")


def test_macs_inside_are_no_ones() -> None:
    """Frames for a pair's end are told from others by its MAC alone."""
    first = int.from_bytes(parts.INNER_MAC[:2], "little")
    assert first not in {parts.SIGN, parts.OUTWARD_SIGN, parts.INWARD}


def test_a_reset_removes_gates(gated: Gated) -> None:
    """One that is whole, and a name without a namespace that a crash has left."""
    gate = newest(gated)
    assert gated.pass_over(gate) == gated.wanted()
    left = namespace_name(OTHER_NODE)
    netns.path_of(left).touch()
    with netns.inside(gated.fd("h1")):
        removed = reset.remove_everything(lambda name: name in {gate.path.name, left})

    assert removed[-1].startswith("gate's programs on ")  # what is sent past them is dropped
    assert {f"gate {gate.path.name}", f"name of a gate {left}"} <= set(removed)
    assert not gate.path.exists()
    assert not netns.path_of(left).exists()
    links = json.loads(gated.run("h1", "ip", "-j", "link"))
    assert {each["ifname"] for each in links} == {"lo", "cable", "ovh", "ovi"}
    assert gated.run("h1", "sysctl", "-n", "net.ipv4.conf.lo.accept_local").split() == ["0"]
    with netns.inside(gated.fd("h1")):
        assert not any("gate" in each for each in reset.remove_everything(lambda _name: False))
