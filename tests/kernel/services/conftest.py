"""A client and backends on one bridge, each in a namespace, with IPv4 and IPv6."""

from __future__ import annotations

import select
import selectors
import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING

import pytest
from overlay.core.services.values import Backend, ServiceProtocol, VirtualPort
from overlay.kernel import netns
from overlay.kernel.services import table_writer
from overlay.kernel.services.client_table import table_of
from overlay.kernel.services.table_plan import TablePlanner
from overlay.kernel.services.table_writer import WrittenTable
from overlay.model import Ip, NodeId, Vni, ip_text, parse_ip

if TYPE_CHECKING:
    from tests.kernel.conftest import World

NODE, OTHER_NODE = NodeId(b"\x01" * 16), NodeId(b"\x02" * 16)
PORT, TARGET_PORT = 80, 8080
PREFIXES = ("10.9.0.", "fd09::")
VIRTUAL = {4: parse_ip("10.9.0.100"), 16: parse_ip("fd09::100")}


class Segment:
    """The containers of a segment: the client is number 1."""

    def __init__(self, world: World, closing: ExitStack) -> None:
        self.world, self._closing = world, closing
        self._bridge = world.namespace("br")
        world.run(self._bridge, "ip", "link", "add", "br0", "type", "bridge")
        world.run(self._bridge, "ip", "link", "set", "br0", "up")
        self.names: dict[int, str] = {}
        self.add(1)
        self.path = str(netns.path_of(self.names[1]))
        self.identity = netns.identity(world.fd(self.names[1]))
        self.written: WrittenTable | None = None
        self.table = table_of(NODE)

    def add(self, number: int) -> None:
        """Add a container."""
        name = self.names[number] = self.world.namespace(f"c{number}")
        port = f"p{number}"
        peer = ("type", "veth", "peer", "eth0", "netns", name)
        self.world.run(self._bridge, "ip", "link", "add", port, *peer)
        self.world.run(self._bridge, "ip", "link", "set", port, "master", "br0", "up")
        self.world.run(name, "ip", "link", "set", "eth0", "up")
        for prefix, length in zip(PREFIXES, ("24", "64"), strict=True):
            address = f"{prefix}{number}/{length}"
            self.world.run(name, "ip", "address", "add", address, "dev", "eth0", "nodad")

    def socket(self, number: int, kind: int, ip: Ip, port: int = 0) -> socket.socket:
        """Return a socket of a container, bound to its address of the family."""
        family = socket.AF_INET if len(ip) == 4 else socket.AF_INET6
        with netns.inside(self.world.fd(self.names[number])):
            made = socket.socket(family, kind)
        self._closing.callback(made.close)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.settimeout(20)
        made.bind((ip_text(ip), port))
        return made

    def restart(self) -> None:
        """Know nothing of what was written, as an agent that starts."""
        self.written = None

    def put(self, *ports: VirtualPort) -> bool:
        """Write the client's table; return whether another program had altered it."""
        planner = TablePlanner(NODE)
        self.written, is_altered = table_writer.ensure(
            self.path, self.identity, planner.table, planner.plan(ports), self.written
        )
        return is_altered


class Backends:
    """Servers that count who asks, by container."""

    def __init__(self, segment: Segment, numbers: range, kind: int, size: int) -> None:
        self.asked: Counter[int] = Counter()
        self.clients: set[tuple[str, int]] = set()
        self._world = segment.world
        self._closing = ExitStack()
        self._selector = self._closing.enter_context(selectors.DefaultSelector())
        for number in numbers:
            listening = segment.socket(number, kind, address(number, size), TARGET_PORT)
            listening.setblocking(False)
            if kind == socket.SOCK_STREAM:
                listening.listen(4096)
            self._selector.register(listening, selectors.EVENT_READ, number)

    def serve(self) -> Counter[int]:
        """Answer what waits, a connection or a datagram, with the number of the container.

        Returns who was asked until now.
        """
        for key, _ in self._selector.select(0):
            listening, number = key.fileobj, key.data
            assert isinstance(listening, socket.socket)
            with suppress(BlockingIOError):
                while True:
                    if listening.type == socket.SOCK_STREAM:
                        made, client = listening.accept()
                        with made:
                            made.sendall(b"%d" % number)
                    else:
                        _, client = listening.recvfrom(64)
                        listening.sendto(b"%d" % number, client)
                    self.asked[number] += 1
                    self.clients.add(client[:2])
        return self.asked

    def answer(self, client: socket.socket) -> bytes:
        """Serve until a client has its answer; return that.

        A client may know of its connection, or have sent, before the backend has it.
        """
        poll = select.poll()  # select has no numbers for thousands of sockets
        poll.register(client, select.POLLIN)

        def is_answered() -> bool:
            self.serve()
            return bool(poll.poll(0))

        self._world.wait_until(is_answered, "an answer")
        return client.recv(64)

    def close(self) -> None:
        """Stop waiting for clients."""
        self._closing.close()


def address(number: int, size: int) -> Ip:
    """Return the address of a container."""
    return parse_ip(PREFIXES[size == 16] + str(number))


def virtual_port(
    numbers: range | tuple[int, ...],
    size: int = 4,
    protocol: ServiceProtocol = "tcp",
    *,
    affinity: bool = False,
) -> VirtualPort:
    """Return the virtual port of the containers with these numbers."""
    backends = tuple(Backend(address(each, size), TARGET_PORT, OTHER_NODE) for each in numbers)
    return VirtualPort(Vni(1), VIRTUAL[size], protocol, PORT, backends, affinity)


@pytest.fixture
def segment(world: World) -> Iterator[Segment]:
    """Return a segment with its client."""
    with ExitStack() as closing:
        yield Segment(world, closing)
