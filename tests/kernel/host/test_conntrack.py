"""UDP connections to a port's previous target are deleted, and no others."""

from __future__ import annotations

import socket
import struct
import time
from contextlib import closing
from typing import TYPE_CHECKING

import pytest
from overlay.kernel import netns
from overlay.kernel.host import conntrack
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import Ip, ip_text, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
NETFILTER = 12  # linux/netlink.h
ADDRESSES = ("10.1.1.1", "127.0.0.1", "fd01::1")
TRACKED = "table inet t { chain c { type filter hook output priority 0; ct state new accept; }; }"

ASKED = parse_ip("10.9.9.9")
TRANSLATED = """table ip n { chain c { type nat hook output priority -100;
ip daddr 10.9.9.9 dnat to 10.1.1.1; }; }"""


def tracked(fd: int) -> set[tuple[str, int]]:
    """Return what a namespace's connections were begun to."""
    with NetlinkSocket(fd, protocol=NETFILTER) as tracker:
        found = [
            flow
            for family in (socket.AF_INET, socket.AF_INET6)
            for flow in conntrack.flows(tracker, family, struct.pack(">BBH", family, 0, 0))
        ]
    return {(ip_text(Ip(each.requested)), int.from_bytes(each.port, "big")) for each in found}


@pytest.fixture
def asked(world: World) -> int:
    """Return a namespace that tracks UDP to two ports of three addresses."""
    name = world.namespace("host")
    world.run(name, "ip", "address", "add", "10.1.1.1/32", "dev", "lo")
    world.run(name, "ip", "address", "add", "fd01::1/128", "dev", "lo", "nodad")
    world.run(name, "nft", TRACKED)
    fd = world.fd(name)
    wanted = {(ip, port) for ip in ADDRESSES for port in (5353, 5354)}
    deadline = time.monotonic() + 30.0
    # The kernel adds the route of an IPv6 address after it answered: a packet sent before is lost.
    while missing := wanted - tracked(fd):
        assert time.monotonic() < deadline, f"not tracked: {missing}"
        for ip, port in missing:
            family = socket.AF_INET6 if ":" in ip else socket.AF_INET
            with netns.inside(fd), closing(socket.socket(family, socket.SOCK_DGRAM)) as asker:
                asker.sendto(b"?", (ip, port))
    return fd


def test_misdirected_connections_are_deleted(asked: int) -> None:
    """By port and family, and not those with the right target.

    A second call deletes none.
    """
    with netns.inside(asked):
        assert conntrack.forget_misdirected({("udp", 5353, 4): [parse_ip("10.1.1.1")]}) == 1
        assert conntrack.forget_misdirected({("udp", 5353, 4): []}) == 1
        assert conntrack.forget_misdirected({("udp", 5353, 4): [], ("udp", 5353, 16): []}) == 1
        assert conntrack.forget_misdirected({("udp", 5353, 4): [], ("udp", 5353, 16): []}) == 0
        assert (
            conntrack.forget_misdirected(
                {("udp", 5353, 4): [], ("udp", 5354, 4): [], ("udp", 5355, 4): []}
            )
            == 2
        )
        assert conntrack.forget_misdirected({("udp", 5354, 16): []}) == 1


def test_only_translated_connections_of_the_ranges_count(world: World, asked: int) -> None:
    """Others are tracked as well: by their namespace's rules, or on their way elsewhere."""
    (name,) = [each for each in world.names if each.endswith("host")]
    ranges = [(parse_ip("10.1.0.0"), 16), (parse_ip("fd01::"), 64)]
    with netns.inside(asked):
        assert not conntrack.translates_any(ranges)
        world.run(name, "ip", "route", "add", "10.9.9.9/32", "dev", "lo")
        world.run(name, "nft", TRANSLATED)
        with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asker:
            asker.sendto(b"?", ("10.9.9.9", 5353))
        assert conntrack.translates_any(ranges)
        assert not conntrack.translates_any(ranges[1:])
        assert not conntrack.translates_any([(parse_ip("10.2.0.0"), 16)])


def test_published_ports_are_those_of_open_connections(world: World, asked: int) -> None:
    """Neither those whose source alone is translated, nor of UDP, nor of what has ended."""
    (name,) = [each for each in world.names if each.endswith("host")]
    world.run(name, "ip", "link", "set", "lo", "up")
    world.run(name, "ip", "route", "add", "10.9.9.9/32", "dev", "lo")
    world.run(name, "nft", TRANSLATED)
    with netns.inside(asked):
        assert conntrack.open_published_ports(asked, [ASKED]) == frozenset()
        server = socket.create_server(("10.1.1.1", 0))
        port = server.getsockname()[1]
        with closing(server), socket.create_connection(("10.9.9.9", port), 20):
            direct = socket.create_connection(("10.1.1.1", port), 20)
            with closing(socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asker:
                asker.sendto(b"?", ("10.9.9.9", 5355))
            assert conntrack.open_published_ports(asked, [ASKED]) == {port}
            peer, _ = server.accept()
        peer.close()
        world.wait_until(
            lambda: not conntrack.open_published_ports(asked, [ASKED]), "the end of it"
        )
        direct.close()


def test_flows_that_begin_at_a_port_are_deleted(asked: int) -> None:
    """Of the addresses that are named, by either family; not those that lead to such a port."""
    begun = {"10.1.1.1": 8053, "fd01::1": 8053, "127.0.0.1": 8053}
    with netns.inside(asked):
        for ip, port in begun.items():
            family = socket.AF_INET6 if ":" in ip else socket.AF_INET
            with closing(socket.socket(family, socket.SOCK_DGRAM)) as sender:
                sender.bind((ip, port))
                sender.sendto(b"?", (ip, 9))
    own = [parse_ip("10.1.1.1"), parse_ip("fd01::1")]
    assert conntrack.forget_begun_at(asked, own, {5353, 5354, 9}) == 0
    assert conntrack.forget_begun_at(asked, own, {8053}) == 2
    assert conntrack.forget_begun_at(asked, own, {8053}) == 0
