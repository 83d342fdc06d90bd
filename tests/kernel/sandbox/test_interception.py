"""Interception of DNS queries in a real kernel: rows, damage, and packets of a container."""

from __future__ import annotations

import select
import socket
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from overlay.agent.dns.server import bound_sockets
from overlay.core.dataplane.operations import DeleteRow, PutRow
from overlay.core.dataplane.state import InterceptRow, Row
from overlay.kernel import netns
from overlay.model import parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import Host, World

pytestmark = pytest.mark.netns
ROWS = (InterceptRow("br0", 4), InterceptRow("br0", 16))
RESOLVER = parse_ip("192.0.2.53")
DAMAGES = {
    "rule": ("ip", "rule", "del", "fwmark", "0x35"),
    "route": ("ip", "route", "flush", "table", "53"),
    "table": ("nft", "delete", "table", "inet", "overlayd_names"),
    "chain": ("nft", "flush", "chain", "inet", "overlayd_names", "arriving"),
}


@pytest.fixture
def host(world: World) -> Host:
    """Return a host with a container that has a default route."""
    made = world.host()
    assert made.converge() == []
    made.attach(parse_ip("10.32.0.2"))
    assert made.converge() == []
    return made


def put(host: Host) -> None:
    """Write the rows."""
    assert host.sandbox.apply([PutRow(row) for row in ROWS]) == []


def read(host: Host) -> set[Row]:
    """Return the rows in force."""
    return {row for row in host.sandbox.read().rows if isinstance(row, InterceptRow)}


def test_written_rows_are_read(host: Host) -> None:
    """They are read back after being written twice, and are gone when deleted twice."""
    for _ in range(2):
        put(host)
        assert read(host) == set(ROWS)
    for _ in range(2):
        assert host.sandbox.apply([DeleteRow(row) for row in ROWS]) == []
        assert read(host) == set()
    assert host.differences() == []


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_row_is_not_read(host: Host, damage: str) -> None:
    """Without rule, route or table the row is not read; writing it again repairs it once."""
    put(host)

    host.world.run(host.sandbox.name, *DAMAGES[damage])

    assert ROWS[0] not in read(host)
    put(host)
    assert read(host) == set(ROWS)
    assert host.world.run(host.sandbox.name, "ip", "rule").count("fwmark 0x35") == 1


@pytest.mark.parametrize("damage", ["rule", "route"])
def test_damage_is_noticed(host: Host, damage: str) -> None:
    """A deleted rule or route contradicts the desired state at once."""
    put(host)
    with ExitStack() as closing:
        monitor = host.sandbox.monitor()
        closing.callback(monitor.close)
        wanted = host.sandbox.read()

        host.world.run(host.sandbox.name, *DAMAGES[damage])

        assert select.select([monitor], [], [], 20)[0]
        assert len(monitor.contradictions(wanted)) == 1


def answerer(host: Host, closing: ExitStack, *, transparent: bool) -> list[socket.socket]:
    """Open the DNS server's sockets in the sandbox, on the resolver's address."""
    with netns.inside(host.sandbox.netns_fd):
        found = bound_sockets(RESOLVER, transparent=transparent)
    for each in found:
        closing.callback(each.close)
    return list(found)


def client(host: Host, closing: ExitStack, kind: socket.SocketKind) -> socket.socket:
    """Return a socket of the container."""
    container = host.world.names[-1]
    with netns.inside(host.world.fd(container)):
        made = socket.socket(socket.AF_INET, kind)
    closing.callback(made.close)
    made.settimeout(20)
    return made


def test_a_query_for_a_resolver_is_answered_in_its_place(host: Host) -> None:
    """By UDP and TCP the answer comes from the address that was asked; other ports pass."""
    put(host)
    place = ("192.0.2.53", 53)
    with ExitStack() as closing:
        udp, tcp = answerer(host, closing, transparent=True)
        asking = client(host, closing, socket.SOCK_DGRAM)
        asking.sendto(b"query", place)
        assert select.select([udp], [], [], 20)[0]
        data, sender = udp.recvfrom(64)
        assert (data, sender[0]) == (b"query", "10.32.0.2")
        udp.sendto(b"answer", sender)
        assert asking.recvfrom(64) == (b"answer", place)

        connecting = client(host, closing, socket.SOCK_STREAM)
        connecting.connect(place)
        assert select.select([tcp], [], [], 20)[0]
        accepted, peer = tcp.accept()
        closing.callback(accepted.close)
        assert peer[0] == "10.32.0.2"
        accepted.sendall(b"hello")
        assert connecting.recv(64) == b"hello"

        other = client(host, closing, socket.SOCK_STREAM)
        with pytest.raises(OSError, match="unreachable"):
            other.connect(("192.0.2.53", 80))


def test_without_a_socket_queries_pass(host: Host) -> None:
    """With the server gone they are routed as any packet: here there is no route out."""
    put(host)
    with ExitStack() as closing:
        answerer(host, closing, transparent=True)
    with ExitStack() as closing:
        connecting = client(host, closing, socket.SOCK_STREAM)
        with pytest.raises(OSError, match="unreachable"):
            connecting.connect(("192.0.2.53", 53))


def test_ipv6_is_intercepted(world: World) -> None:
    """A container with IPv6 addresses is answered in the place of an IPv6 resolver."""
    host = world.host(gateway="fd00::1", prefix_length=64)
    assert host.converge() == []
    host.attach(parse_ip("fd00::2"))
    assert host.converge() == []
    put(host)
    resolver = parse_ip("2001:db8::53")
    with ExitStack() as closing:
        with netns.inside(host.sandbox.netns_fd):
            udp, tcp = bound_sockets(resolver, transparent=True)
        closing.callback(udp.close)
        closing.callback(tcp.close)
        with netns.inside(world.fd(world.names[-1])):
            asking = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
        closing.callback(asking.close)
        asking.settimeout(20)
        asking.sendto(b"query", ("2001:db8::53", 53))
        assert select.select([udp], [], [], 20)[0]
        data, sender = udp.recvfrom(64)
        udp.sendto(data, sender)
        assert asking.recvfrom(64)[1][:2] == ("2001:db8::53", 53)
