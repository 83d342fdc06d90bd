"""Which containers have a server in place of Docker's resolver, and what it answers."""

from __future__ import annotations

import asyncio
import socket
from types import SimpleNamespace
from typing import Any, cast

import pytest
from dnslib import DNSRecord
from overlay import limits
from overlay.agent.dns import docker_resolvers
from overlay.agent.dns.docker_resolvers import ContainerDnsServer, DockerForwarder, DockerResolvers
from overlay.agent.dns.query import Query
from overlay.agent.dns.server import bound_sockets
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.errors import OverlayError
from overlay.model import Ip, Network, parse_ip
from overlay.signals import AsyncSignal
from tests.agent.dns.conftest import BLUE, CLIENT, FakeResolver, Loopback, resolver
from tests.agent.dns.test_resolver_redirects import IDENTITY, PATH, FakeNode, attachment

PLACE = (PATH, IDENTITY)


class FakeDockers(DockerForwarder):
    """Docker's resolver."""

    def __init__(
        self, ip: str = "", rcode: int = 0, *, wait_s: float = 0.0, ttl_s: int = 600
    ) -> None:
        super().__init__(cast("KernelThread", None), PLACE)
        self._fake = FakeResolver(ip, rcode)
        self._ttl_s = ttl_s
        self._wait_s = wait_s

    async def forward(
        self, _network: Network, _client: Ip, query: Query, *, by_tcp: bool, asked: Ip | None = None
    ) -> bytes:
        """Answer with one address, or fail."""
        del by_tcp, asked
        await asyncio.sleep(self._wait_s)
        answer = self._fake.answer(query.raw)
        assert answer is not None
        record = DNSRecord.parse(answer)
        for each in record.rr:
            each.ttl = self._ttl_s
        return bytes(record.pack())


async def answered(dockers: FakeDockers, name: str) -> list[str]:
    """Return the addresses that a container gets for a name."""
    server = ContainerDnsServer(BLUE, resolver(), dockers, CLIENT)
    query = DNSRecord.question(name).pack()
    raw = await server.answer(query, parse_ip("127.0.0.1"), by_tcp=False)
    assert raw is not None
    return [str(each.rdata) for each in DNSRecord.parse(raw).rr]


async def test_dockers_own_names_win() -> None:
    """A name without a dot is Docker's first; one below overlayd's domain is never Docker's."""
    dockers = FakeDockers("172.18.0.2")

    assert await answered(dockers, "web") == ["172.18.0.2"]
    assert await answered(dockers, "web.blue.overlay") == ["10.1.0.2"]
    assert await answered(dockers, "www.example.org") == ["172.18.0.2"]


@pytest.mark.parametrize(
    "dockers",
    [FakeDockers(), FakeDockers(rcode=3), FakeDockers(rcode=2), FakeDockers("192.0.2.1", ttl_s=60)],
)
async def test_what_docker_lacks_is_overlayds(dockers: FakeDockers) -> None:
    """Whether there is none, it could not find out, or resolvers of the host know such a name."""
    assert await answered(dockers, "web") == ["10.1.0.2"]


async def test_a_slow_resolver_does_not_delay_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Docker waits seconds for the host's resolvers."""
    monkeypatch.setattr(limits, "DNS_DOCKER_FIRST_S", 0.01)

    assert await answered(FakeDockers("172.18.0.2", wait_s=20.0), "web") == ["10.1.0.2"]


@pytest.mark.parametrize("by_tcp", [False, True])
async def test_docker_is_asked_from_the_container(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch, *, by_tcp: bool
) -> None:
    """By the protocol of the query; a container that is gone answers nothing."""
    await loopback.add("127.0.0.9", FakeResolver("192.0.2.9"))
    monkeypatch.setattr(docker_resolvers, "_PLACE", ("127.0.0.9", loopback.port))
    kinds: list[socket.SocketKind] = []

    def inside(_path: str, _identity: object, kind: socket.SocketKind) -> socket.socket:
        kinds.append(kind)
        return socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK)

    monkeypatch.setattr(docker_resolvers, "_socket_inside", inside)
    forwarder = DockerForwarder(cast("KernelThread", FakeNode().kernel), PLACE)
    query = Query.parse(DNSRecord.question("www.example.org").pack())
    assert query is not None

    raw = await forwarder.forward(BLUE, CLIENT, query, by_tcp=by_tcp)
    assert [str(each.rdata) for each in DNSRecord.parse(raw).rr] == ["192.0.2.9"]
    assert kinds == [socket.SOCK_STREAM if by_tcp else socket.SOCK_DGRAM]
    monkeypatch.setattr(docker_resolvers, "_socket_inside", lambda *_: None)
    raw = await forwarder.forward(BLUE, CLIENT, query, by_tcp=by_tcp)
    assert DNSRecord.parse(raw).header.rcode == 2


async def test_a_container_has_a_bounded_share(monkeypatch: pytest.MonkeyPatch) -> None:
    """Further queries at once are refused, without a call of the kernel thread."""
    calls = 0

    async def call(*_: object) -> None:
        nonlocal calls
        calls += 1
        await asyncio.sleep(0)

    forwarder = DockerForwarder(cast("KernelThread", SimpleNamespace(call=call)), PLACE)
    monkeypatch.setattr(limits, "DNS_FORWARDS_PER_CLIENT_MAX", 3)
    query = Query.parse(DNSRecord.question("www.example.org").pack())
    assert query is not None
    asking = (forwarder.forward(BLUE, CLIENT, query, by_tcp=False) for _ in range(5))

    codes = [DNSRecord.parse(raw).header.rcode for raw in await asyncio.gather(*asking)]

    assert (sorted(codes), calls) == ([2, 2, 2, 5, 5], 3)


# --- which containers -------------------------------------------------------------------------


class World:
    """A container's attachments, and whether a server is in it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.node = FakeNode()
        self.attachments = Attachments()
        self.changed: AsyncSignal[[tuple[int, int]]] = AsyncSignal()
        self.is_loopback = True
        self.is_here = True
        self.refusal: Exception | None = None
        self.tables = 0
        monkeypatch.setattr(docker_resolvers, "_server_sockets", self._sockets)
        monkeypatch.setattr(docker_resolvers, "DockerResolverTable", self)
        self.servers = DockerResolvers(
            cast("NodeContext", self.node),
            self.attachments,
            resolver(),
            self.changed,
            lambda: self.is_loopback,
        )

    def _sockets(self, *_: object) -> Any:
        return bound_sockets(parse_ip("127.0.0.153"), transparent=False) if self.is_here else None

    def open(self, *_: object) -> World:
        """Put the table into the container."""
        if self.refusal is not None:
            raise self.refusal
        self.tables += 1
        return self

    def close(self) -> None:
        """Remove it."""
        self.tables -= 1

    async def of(self, *attachments: Attachment) -> int:
        """Return the number of servers, once the container has these attachments."""
        self.attachments.clear()
        self.attachments.update((bytes.fromhex(a.endpoint_id), a) for a in attachments)
        await self.changed.emit(IDENTITY)
        return self.tables


@pytest.fixture
def world(loopback: Loopback, monkeypatch: pytest.MonkeyPatch) -> World:
    """Return a container; its server's port is free as port 53 is on the loopback of tests."""
    del loopback
    return World(monkeypatch)


async def test_only_loopback_resolvers_need_a_server(world: World) -> None:
    """It comes and goes with the attachment, and follows the host's resolvers."""
    assert await world.of(attachment(BLUE.vni)) == 1
    assert await world.of(attachment(BLUE.vni)) == 1
    assert await world.of() == 0
    assert await world.of(attachment(BLUE.vni)) == 1
    world.is_loopback = False
    assert await world.of(attachment(BLUE.vni)) == 0


@pytest.mark.parametrize(
    "fields", [{"target": "podman:web"}, {"resolvers": ["192.0.2.1"]}, {"plugged": False}]
)
async def test_other_containers_have_none(world: World, fields: dict[str, Any]) -> None:
    """Neither those of other engines, nor those that were given a resolver."""
    assert await world.of(attachment(BLUE.vni, **fields)) == 0


async def test_dockers_default_bridge_has_none(world: World) -> None:
    """Docker's resolver is not in its containers."""
    world.is_here = False

    assert await world.of(attachment(BLUE.vni)) == 0


@pytest.mark.parametrize("error", [OSError(1, "Operation not permitted"), OverlayError("no nft")])
async def test_a_refusal_is_told_once(world: World, error: Exception) -> None:
    """With what to do; nothing half-made stays, so a later check starts anew."""
    world.refusal = error
    for _ in range(2):
        assert await world.of(attachment(BLUE.vni)) == 0
    (text,) = world.node.events
    assert "--dns GATEWAY" in text

    world.refusal = None
    assert await world.of(attachment(BLUE.vni)) == 1


async def test_a_start_and_an_end_cover_all(world: World) -> None:
    """As no server outlives the agent."""
    world.is_loopback = False
    await world.of(attachment(BLUE.vni))
    world.is_loopback = True

    await world.servers.ensure_all()
    assert world.tables == 1
    await world.servers.close()
    assert world.tables == 0
