"""Routers between the sandboxes of two networks, with real packets."""

from __future__ import annotations

import subprocess
from functools import partial
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.planning.router_rows import router_link_name
from overlay.core.dataplane.planning.segments import port_name
from overlay.core.dataplane.state import GuardRow
from overlay.kernel import netns
from tests.kernel.router.conftest import BLUE, BOTH_PATHS, RED, RoutedHost, is_refused, meet

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.kernel.conftest import Capture, World

pytestmark = pytest.mark.netns
Hosts = tuple[RoutedHost, RoutedHost]


def ping_text(namespace: str, address: str, *options: str) -> str:
    """Return what one ping prints."""
    inside = ["nsenter", f"--net={netns.path_of(namespace)}"]
    command = [*inside, "ping", "-n", "-c", "1", "-W", "1", *options, address]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def _answers_itself(world: World, namespace: str, address: str) -> bool:
    return world.pings(namespace, address) == 1


def is_echo_request(frame: bytes) -> bool:
    """Return whether a frame is an echo request of ICMP or ICMPv6."""
    if frame[12:14] == b"\x08\x00":
        return frame[23] == 1 and frame[34] == 8
    return frame[12:14] == b"\x86\xdd" and frame[20] == 58 and frame[54] == 128


@BOTH_PATHS
def test_packets_cross_hosts_and_networks(world: World, routed_hosts: Hosts) -> None:
    """Both families, between hosts and on one, both ways."""
    one, two = routed_hosts
    web, near, db = one.attach(BLUE, 2), one.attach(RED, 3), two.attach(RED, 4)
    meet(one, two)

    for target in ("10.33.0.3", "10.33.0.4", "fd00:33::3", "fd00:33::4"):
        assert world.pings(web, target) == 1, target
    assert world.pings(db, "10.32.0.2") == world.pings(db, "fd00:32::2") == 1
    assert world.pings(near, "10.32.0.2") == 1


def test_a_sandbox_reads_as_planned(routed_hosts: Hosts) -> None:
    """A further pass does nothing, with and without containers."""
    one, two = routed_hosts
    one.attach(BLUE, 2)
    meet(one, two)

    for host in (one, two):
        assert host.differences() == []


def test_each_router_takes_one_hop(world: World, routed_hosts: Hosts) -> None:
    """Two are passed: one in each network's sandbox; the first answers for what ends there."""
    one, two = routed_hosts
    web, _ = one.attach(BLUE, 2), two.attach(RED, 4)
    meet(one, two)

    assert world.pings(web, "10.33.0.4", "-t", "3") == 1
    assert is_refused(world, web, "10.33.0.4", "-t", "2")
    assert is_refused(world, web, "fd00:33::4", "-t", "2")
    assert "10.32.0.1" in ping_text(web, "10.33.0.4", "-t", "1")
    assert "10.33.0.1" in ping_text(web, "10.33.0.4", "-t", "2")


@pytest.mark.parametrize(("target", "told"), [("10.33.0.4", "mtu = 1300"), ("fd00:33::4", "1300")])
def test_too_long_packets_are_answered(
    world: World, routed_hosts: Hosts, target: str, told: str
) -> None:
    """The gateway of the container's own network tells what fits the other one."""
    one, two = routed_hosts
    for host in (one, two):
        host.mtus = {RED.vni: 1300}
    web, _ = one.attach(BLUE, 2), two.attach(RED, 4)
    meet(one, two)

    assert told in ping_text(web, target, "-M", "do", "-s", "1350")
    assert world.pings(web, target, "-M", "do", "-s", "1240") == 1
    assert world.pings(web, target, "-M", "dont", "-s", "3000") == 1


@BOTH_PATHS
def test_only_the_other_network_gets_in(
    world: World, routed_hosts: Hosts, capture: Callable[[str, str], Capture]
) -> None:
    """Not a container that sends as one of this network, or as one of the world."""
    one, two = routed_hosts
    web, db = one.attach(BLUE, 2), one.attach(RED, 4)
    meet(one, two)
    sandbox = one.sandboxes[RED.vni]
    assert sandbox.guard is not None
    port = port_name(one.locals[-1].endpoint_id)
    sandbox.guard.put([(GuardRow((), (), port), sandbox.link_index(port))])
    forged = {"10.32.0.77/32": "10.32.0.2", "8.8.8.8/32": "10.32.0.2"}
    forged |= {"fd00:32::77/128": "fd00:32::2", "2001:db8::8/128": "fd00:32::2"}
    arriving = capture(web, "eth0")
    for address, target in forged.items():
        world.run(db, "ip", "address", "add", address, "dev", "eth0")
        source = address.partition("/")[0]
        world.wait_until(partial(_answers_itself, world, db, source), "the address is usable")
        assert is_refused(world, db, target, "-I", source)
    assert not [frame for frame in arriving.frames() if is_echo_request(frame)]

    assert world.pings(db, "10.32.0.2", "-I", "10.33.0.4") == 1
    assert world.pings(db, "fd00:32::2", "-I", "fd00:33::4") == 1
    assert len([frame for frame in arriving.frames() if is_echo_request(frame)]) == 2


def test_a_broken_link_is_replaced(world: World, routed_hosts: Hosts) -> None:
    """One that is gone, down, or leads elsewhere; with rows and rules."""
    one, two = routed_hosts
    web, _ = one.attach(BLUE, 2), one.attach(RED, 4)
    meet(one, two)
    blue = one.sandboxes[BLUE.vni].name
    link = router_link_name(RED.vni)
    elsewhere = world.namespace("x")
    for damage in (
        ("ip", "link", "del", link),
        ("ip", "link", "set", link, "down"),
        ("ip", "link", "set", link, "address", "02:00:00:00:00:01"),
        ("ip", "route", "del", "10.33.0.0/16"),
        ("ip", "-6", "route", "del", "fd00:33::/64"),
        ("ip", "neigh", "del", "10.33.0.1", "dev", link),
        ("ip", "-6", "rule", "del", "pref", "900"),
        ("ip", "rule", "del", "pref", "901"),
    ):
        world.run(blue, *damage)
        assert one.differences() != [], damage
        one.converge()
        assert world.pings(web, "10.33.0.4") == world.pings(web, "fd00:33::4") == 1, damage

    world.run(one.sandboxes[RED.vni].name, "ip", "link", "set", router_link_name(BLUE.vni),
              "netns", elsewhere)  # fmt: skip
    assert one.differences() != []
    one.converge()
    assert world.pings(web, "10.33.0.4") == 1


def test_a_removed_router_leaves_nothing(world: World, routed_hosts: Hosts) -> None:
    """No link, route, neighbor or rule; whoever of the two comes first."""
    one, two = routed_hosts
    web, _ = one.attach(BLUE, 2), one.attach(RED, 4)
    meet(one, two)
    one.is_routed = False
    one.converge()

    assert is_refused(world, web, "10.33.0.4")
    for sandbox in one.sandboxes.values():
        shown = [
            world.run(sandbox.name, "ip", *words)
            for words in (("link",), ("route",), ("-6", "route"), ("rule",), ("-6", "rule"))
        ]
        assert "rt80" not in "".join(shown)
        assert "prohibit" not in "".join(shown)


def test_the_next_agent_adopts_the_link(world: World, routed_hosts: Hosts) -> None:
    """Nothing is written again, and no packet is lost."""
    one, two = routed_hosts
    web, _ = one.attach(BLUE, 2), two.attach(RED, 4)
    meet(one, two)
    link = router_link_name(RED.vni)
    before = world.run(one.sandboxes[BLUE.vni].name, "ip", "-o", "link", "show", link)
    for network in (BLUE, RED):
        one.sandboxes[network.vni].close()
        one.open(network)
    operations = [text for text in one.differences() if "fast path" not in text]

    assert operations == []
    one.converge()
    assert world.run(one.sandboxes[BLUE.vni].name, "ip", "-o", "link", "show", link) == before
    assert world.pings(web, "10.33.0.4", count=2) == 2
