"""A new address is waited for until packets reach it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest
from overlay.kernel.netlink import address_requests, readiness
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.model import parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
IP = parse_ip("fd10:32::2")
ROUTE_TYPE, LOCAL = 7, 2


def test_an_address_is_waited_for(world: World) -> None:
    """It may be added after the wait began, and is local when that ends; IPv4 is not waited for."""
    name = world.namespace("c")
    fd = world.fd(name)
    add = threading.Timer(
        0.05, world.run, (name, "ip", "address", "add", "fd10:32::2/64", "dev", "lo", "nodad")
    )
    with NetlinkSocket(fd) as inside:
        assert readiness.wait_local(inside, [parse_ip("10.32.0.9")])
        with pytest.raises(NetlinkError):
            inside.get(address_requests.get_route(IP))
        add.start()
        assert readiness.wait_local(inside, [IP])
        (route,) = inside.get(address_requests.get_route(IP))
        assert route.buffer[route.start + ROUTE_TYPE] == LOCAL
    add.join()


def test_the_wait_for_an_address_ends(world: World) -> None:
    """One that is on no interface is not waited for forever, nor one that another host has."""
    name = world.namespace("c")
    world.run(name, "ip", "link", "add", "veth0", "type", "veth", "peer", "name", "veth1")
    world.run(name, "ip", "link", "set", "veth0", "up")
    with NetlinkSocket(world.fd(name)) as inside:
        assert not readiness.wait_local(inside, [IP])
        world.run(name, "ip", "route", "add", "fd10:32::/64", "dev", "veth0")
        assert not readiness.wait_local(inside, [IP])
