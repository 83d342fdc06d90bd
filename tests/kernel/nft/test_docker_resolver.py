"""Queries for Docker's resolver in a real kernel: who gets them, beside a table like Docker's."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from overlay.kernel import netns
from overlay.kernel.nft.docker_resolver import DOCKERS, SERVER, DockerResolverTable, is_here
from overlay.model import Ip, ip_text, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import World

pytestmark = pytest.mark.netns
PORT = 40_053  # of Docker's resolver: a random one
DOCKERS_TABLE = """table ip nat {
  chain OUTPUT { type nat hook output priority -100; jump DOCKER_OUTPUT; }
  chain DOCKER_OUTPUT {
    ip daddr 127.0.0.11 udp dport 53 dnat to 127.0.0.11:40053
    ip daddr 127.0.0.11 tcp dport 53 dnat to 127.0.0.11:40053
  }
}"""


class Container:
    """A container with a table like Docker's, and what listens in it."""

    def __init__(self, world: World, closing: ExitStack) -> None:
        self.world, self.name = world, world.namespace("c")
        self._closing = closing
        world.run(self.name, "ip", "link", "set", "lo", "up")
        world.run(self.name, "nft", DOCKERS_TABLE)
        self.path = str(netns.path_of(self.name))
        self.identity = netns.identity(world.fd(self.name))

    def socket(self, address: Ip, port: int, kind: int) -> socket.socket:
        """Return a socket with an address in the container."""
        with netns.inside(self.world.fd(self.name)):
            made = socket.socket(socket.AF_INET, kind)
        self._closing.callback(made.close)
        made.settimeout(20)
        made.bind((ip_text(address), port))
        return made


@pytest.fixture
def container(world: World) -> Iterator[Container]:
    """Return a container."""
    with ExitStack() as closing:
        yield Container(world, closing)


def serve(listening: socket.socket, client: socket.socket, name: bytes) -> bytes:
    """Send a query, let a server answer it, and return what the client receives."""
    client.sendto(b"?", (ip_text(DOCKERS), 53))
    _, sender = listening.recvfrom(64)
    listening.sendto(name, sender)
    answer, place = client.recvfrom(64)
    assert place == (ip_text(DOCKERS), 53)
    return answer


def test_the_server_is_asked_in_dockers_place(container: Container) -> None:
    """Until the table goes; the server itself asks Docker's resolver."""
    dockers = container.socket(DOCKERS, PORT, socket.SOCK_DGRAM)
    server = container.socket(SERVER, 53, socket.SOCK_DGRAM)
    table = DockerResolverTable.open(container.path, container.identity)
    assert table is not None
    loopback = parse_ip("127.0.0.1")

    client = container.socket(loopback, 0, socket.SOCK_DGRAM)
    assert serve(server, client, b"server") == b"server"
    own = container.socket(SERVER, 0, socket.SOCK_DGRAM)
    assert serve(dockers, own, b"docker") == b"docker"

    table.close()
    client = container.socket(loopback, 0, socket.SOCK_DGRAM)
    assert serve(dockers, client, b"docker") == b"docker"
    assert "overlayd" not in container.world.run(container.name, "nft", "list", "tables")


def test_tcp_arrives_as_well(container: Container) -> None:
    """A connection to Docker's resolver is one to the server."""
    server = container.socket(SERVER, 53, socket.SOCK_STREAM)
    server.listen()
    table = DockerResolverTable.open(container.path, container.identity)
    assert table is not None

    client = container.socket(parse_ip("127.0.0.1"), 0, socket.SOCK_STREAM)
    client.connect((ip_text(DOCKERS), 53))
    accepted, _ = server.accept()

    with accepted:
        accepted.sendall(b"server")
        assert client.recv(64) == b"server"
    table.close()


def test_dockers_resolver_is_found_by_its_socket(container: Container) -> None:
    """Without one, as on Docker's default bridge, there is nothing to answer for."""
    with netns.inside(container.world.fd(container.name)):
        assert not is_here()
    container.socket(DOCKERS, PORT, socket.SOCK_DGRAM)
    with netns.inside(container.world.fd(container.name)):
        assert is_here()


def test_a_container_that_is_gone_has_no_table(container: Container) -> None:
    """Its namespace is another one by now, or none."""
    assert DockerResolverTable.open(container.path, (0, 1)) is None
