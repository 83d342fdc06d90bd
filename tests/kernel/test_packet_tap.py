"""Marked packets are seen where they pass, and no others."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

import pytest
from overlay.kernel.icmp_echo import IcmpEcho
from overlay.kernel.packet_tap import PacketTap, Sighting, mark_offset
from overlay.model import parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import Host, World

pytestmark = pytest.mark.netns
FIRST, SECOND = parse_ip("10.32.0.2"), parse_ip("10.32.0.3")
PATIENCE_S = 20.0  # a loaded machine


def test_a_marked_packet_is_seen_on_its_way(world: World, two_hosts: tuple[Host, Host]) -> None:
    """As it leaves the container and its host, within VXLAN, and so is its answer."""
    one, two = two_hosts
    name, _ = world.plug(one, two)
    with contextlib.ExitStack() as undo:
        echo = IcmpEcho(world.fd(name), FIRST, SECOND, 56)
        undo.enter_context(contextlib.closing(echo))
        inner, outer = mark_offset(SECOND, None), mark_offset(SECOND, two.underlay)
        inside = undo.enter_context(PacketTap(world.fd(name), echo.token, inner))
        sender = undo.enter_context(PacketTap(world.fd(one.name), echo.token, outer))
        receiver = undo.enter_context(PacketTap(world.fd(two.name), echo.token, outer))
        other = undo.enter_context(PacketTap(world.fd(one.name), os.urandom(8), outer))
        assert echo.send(1) == ""
        assert echo.wait(time.monotonic() + PATIENCE_S) is not None

        assert inside.sightings() == [Sighting("eth0", True), Sighting("eth0", False)]
        assert sender.sightings() == [Sighting("eth1", True), Sighting("eth1", False)]
        assert receiver.sightings() == [Sighting("eth1", False), Sighting("eth1", True)]
        assert other.sightings() == []
        assert inside.sightings() == []


@pytest.mark.parametrize(
    ("target", "vtep", "offset"),
    [
        ("10.1.0.2", None, 28),
        ("fd01::2", None, 48),
        ("10.1.0.2", "192.0.2.1", 78),
        ("fd01::2", "192.0.2.1", 98),
        ("10.1.0.2", "2001:db8::1", 98),
        ("fd01::2", "2001:db8::1", 118),
    ],
)
def test_the_mark_is_behind_the_headers(target: str, vtep: str | None, offset: int) -> None:
    """IP and ICMP; within VXLAN also IP, UDP, VXLAN and Ethernet."""
    assert mark_offset(parse_ip(target), None if vtep is None else parse_ip(vtep)) == offset
