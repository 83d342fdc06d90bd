"""Isolated ports, with real packets: they reach others and the gateway, but not each other."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.diff import diff
from overlay.model import ISOLATE_PORTS_LABEL, ISOLATED_LABEL, NOT_ISOLATED_LABEL, gateway_mac
from tests.kernel.conftest import VNI
from tests.kernel.planned_hosts import PlannedHosts

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns


@pytest.mark.parametrize(
    ("fast", "by_network"), [(True, True), (False, False)], ids=["network, fast path", "ports"]
)
def test_isolated_ports_do_not_reach_each_other(
    world: World, *, fast: bool, by_network: bool
) -> None:
    """Neither on one host nor across, by IPv4 or IPv6; all others are reached."""
    labels = (ISOLATE_PORTS_LABEL,) if by_network else ()
    isolated = () if by_network else (ISOLATED_LABEL,)
    common = (NOT_ISOLATED_LABEL,) if by_network else ()
    hosts = PlannedHosts(world, fast, labels)
    first, near, far = (hosts.attach(number, *isolated) for number in (0, 0, 1))
    shared_near, shared_far = (hosts.attach(number, *common) for number in (0, 1))

    for family in (4, 6):
        for one, other in ((first, near), (near, first), (first, far), (far, first)):
            assert hosts.misses(one, other, family)
        for one in (first, far):
            for other in (shared_near, shared_far):
                assert hosts.reaches(one, other, family)
                assert hosts.reaches(other, one, family)
    assert world.pings(first.namespace, "10.32.0.1") == 1
    assert world.pings(far.namespace, "fd32::1") == 1


def test_a_gateway_routes_nothing_between_them(world: World) -> None:
    """A packet for the other one, sent to the gateway's MAC, is dropped by either host."""
    hosts = PlannedHosts(world, fast=True, labels=(ISOLATE_PORTS_LABEL,))
    first, near, far = (hosts.attach(number) for number in (0, 0, 1))
    gateway = gateway_mac(VNI, 0).hex(":")

    for guest in (first, near, far):
        for other in (first, near, far):
            for family in (4, 6) if guest is not other else ():
                words = ("neighbour", "replace", other.address(family), "lladdr", gateway)
                world.run(guest.namespace, "ip", *words, "dev", "eth0", "nud", "permanent")

    for family in (4, 6):
        assert hosts.misses(first, near, family)
        assert hosts.misses(first, far, family)


def test_a_host_that_lacks_a_record_is_covered_by_the_other(world: World) -> None:
    """Either host drops the frames if the other one does not know yet that its end is isolated."""
    hosts = PlannedHosts(world, fast=True)
    first, far = hosts.attach(0, ISOLATED_LABEL), hosts.attach(1, ISOLATED_LABEL)
    for sandbox in (host.sandbox for host in hosts.hosts):
        before = sandbox.read()
        rows = frozenset(row for row in before.rows if type(row).__name__ != "IsolatedRow")
        unaware = type(before)(before.links, rows)
        assert sandbox.apply(diff(unaware, before, prune=True)) == []

        assert hosts.misses(first, far, 4)
        assert hosts.misses(far, first, 6)

        hosts.converge()


def test_a_forged_sender_reaches_no_isolated_port(world: World) -> None:
    """The MAC of a container that is not isolated does not help."""
    hosts = PlannedHosts(world, fast=True, labels=(ISOLATE_PORTS_LABEL,))
    first, near, far = (hosts.attach(number) for number in (0, 0, 1))
    common = hosts.attach(0, NOT_ISOLATED_LABEL)
    world.run(first.namespace, "ip", "link", "set", "eth0", "address", common.endpoint.mac.hex(":"))

    for family in (4, 6):
        assert hosts.misses(first, near, family)
        assert hosts.misses(first, far, family)
