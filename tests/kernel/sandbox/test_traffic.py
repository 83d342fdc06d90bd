"""Counters of a sandbox's interfaces, from the containers' point of view."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from overlay.kernel.sandbox.traffic import read_traffic, read_tunnel_bytes
from overlay.model import parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns


def test_a_port_counts_what_its_container_receives(world: World) -> None:
    """Received and transmitted are those of the container's end, in packets and bytes."""
    host = world.host()
    assert host.converge() == []
    container = host.attach(parse_ip("10.32.0.2"))
    assert host.converge() == []
    assert world.pings(container, "10.32.0.1") == 1
    before = read_traffic(host.sandbox.socket)
    # One way only: nobody answers for this address, and the gateway has no say in it.
    world.run(container, "ip", "neighbor", "add", "10.32.0.9", "lladdr", "02:00:00:00:00:09",
              "dev", "eth0", "nud", "permanent")  # fmt: skip

    world.pings(container, "10.32.0.9", "-s", "1000", count=3)

    after = read_traffic(host.sandbox.socket)
    grown = after.ports["p0"].since(before.ports["p0"])
    assert grown.transmit_packets >= 3
    assert grown.transmit_bytes >= 3 * 1028
    assert grown.receive_bytes < 1000


def test_a_sandbox_without_a_tunnel_has_no_tunnel_counters(world: World) -> None:
    """A sandbox that holds nothing yet is read as such."""
    assert read_traffic(world.host().sandbox.socket) == (None, {})


def test_bytes_of_a_tunnel_are_those_of_its_device(world: World) -> None:
    """The sum is read without the ports; a sandbox without a tunnel has none."""
    host = world.host()
    assert read_tunnel_bytes(host.sandbox) is None
    assert host.converge() == []
    tunnel = read_traffic(host.sandbox.socket).tunnel
    assert tunnel is not None
    assert read_tunnel_bytes(host.sandbox) == tunnel.transmit_bytes
