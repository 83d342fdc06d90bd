"""Routers between the sandboxes of two networks, with real packets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from tests.kernel.router.conftest import BLUE, RED, RoutedHost, meet

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
Hosts = tuple[RoutedHost, RoutedHost]


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
