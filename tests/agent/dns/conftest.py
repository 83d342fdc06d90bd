"""Records, DNS clients, a server of theirs, and resolvers on the loopback interface."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
from collections.abc import AsyncIterator, Hashable, Sequence
from dataclasses import replace
from typing import cast

import pytest
from dnslib import QTYPE, RR, A, DNSRecord
from overlay.agent.dns import upstream
from overlay.agent.dns.forwarder import Forwarder
from overlay.agent.dns.resolver import Resolver
from overlay.agent.dns.server import DnsServer
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import CustomRecord
from overlay.core.services.derivation import PlacedService
from overlay.model import Endpoint, Ip, Mac, Network, NodeId, Subnet, Vni, parse_ip

ALIVE, DEAD = NodeId(b"a" * 16), NodeId(b"d" * 16)
CLIENT = parse_ip("10.1.0.9")


def subnet(text: str) -> Subnet:
    """Return a /16 whose gateway is its first address."""
    base = parse_ip(text)
    return Subnet(base, 16, Ip(base[:3] + b"\x01"))


BLUE = Network(Vni(1), "blue", (subnet("10.1.0.0"),), ALIVE)
SHUT = replace(BLUE, name="shut", internal=True)
RED = Network(Vni(2), "red", (subnet("10.2.0.0"),), ALIVE)


def endpoint(vni: int, name: str, ip: str, *aliases: str) -> Endpoint:
    """Return an endpoint record."""
    endpoint_id = name.encode().ljust(8)
    return Endpoint(endpoint_id, Vni(vni), name, Mac(b"\2" * 6), (parse_ip(ip),), aliases)


class Records:
    """A directory of four endpoints: one on a dead node, one on another network."""

    def endpoints(self, vni: int) -> list[tuple[NodeId, Endpoint]]:
        """Return the endpoints of a network."""
        everything = [
            (ALIVE, endpoint(1, "web", "10.1.0.2", "www")),
            (ALIVE, endpoint(1, "Web2", "10.1.0.3", "www")),
            (DEAD, endpoint(1, "ghost", "10.1.0.4", "www")),
            (ALIVE, endpoint(2, "db", "10.2.0.2")),
        ]
        return [item for item in everything if item[1].vni == vni]

    def custom_records(self, vni: int) -> list[tuple[NodeId, CustomRecord]]:
        """Return two custom records on blue; one has the name of a container."""
        records = [
            CustomRecord("router", (parse_ip("10.1.0.1"), parse_ip("192.168.7.1"))),
            CustomRecord("web", (parse_ip("192.168.7.2"),)),
        ]
        return [(DEAD, item) for item in records if vni == 1]

    def routed_with(self, _network: Network) -> list[Network]:
        """Return no network: there is no router."""
        return []

    def services(self, _vni: int) -> list[PlacedService]:
        """Return no service."""
        return []

    def node_state(self, node_id: NodeId) -> MemberState:
        """Return the state of a node."""
        return MemberState.DEAD if node_id == DEAD else MemberState.ALIVE


class Clients:
    """DNS clients that are on the network of their query, and on others."""

    def __init__(self, *others: Network, resolvers: Sequence[str] = ()) -> None:
        self._others = others
        self._resolvers = resolvers

    def reaches_outside(self, network: Network, _ip: Ip) -> bool:
        """Return whether a client is on a network that is not internal."""
        return any(not each.internal for each in (network, *self._others))

    def resolvers(self, _network: Network, _ip: Ip) -> Sequence[str]:
        """Return the resolvers of a client."""
        return self._resolvers

    def identity(self, _network: Network, ip: Ip) -> Hashable:
        """Return the container that a client is."""
        return ip

    def networks(self, network: Network, _ip: Ip) -> list[Network]:
        """Return the networks of a client."""
        return [network, *self._others]


def resolver(*others: Network, records: Records | None = None) -> Resolver:
    """Return a resolver for a client that is on further networks, besides that of its query."""
    return Resolver(records or Records(), Clients(*others))  # type: ignore[arg-type]


def server(
    network: Network = BLUE,
    *others: Network,
    resolvers: Sequence[str] = (),
    records: Records | None = None,
) -> DnsServer:
    """Return a server that is not bound to anything, for a client that is on all `networks`."""
    clients = Clients(*others, resolvers=resolvers)
    return DnsServer(network, resolver(records=records), random.Random(1), Forwarder(clients))


class FakeResolver(asyncio.DatagramProtocol):
    """A resolver that answers queries by UDP and TCP with one address, or fails, or is silent."""

    def __init__(self, ip: str = "192.0.2.7", rcode: int = 0, *, is_silent: bool = False) -> None:
        self.queries: list[DNSRecord] = []
        self.ip = ip
        self.rcode = rcode
        self.is_silent = is_silent
        self.writers: set[asyncio.StreamWriter] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # The selector loop's transport has the methods of one, but not the base class.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a query by UDP."""
        if (answer := self.answer(data)) is not None:
            self._transport.sendto(answer, addr)

    def answer(self, raw: bytes) -> bytes | None:
        """Return the answer to a query; None if this resolver is silent."""
        query = DNSRecord.parse(raw)
        self.queries.append(query)
        reply = query.reply(aa=0)
        reply.header.rcode = self.rcode
        if not self.rcode and query.q.qtype == QTYPE.A and self.ip:
            reply.add_answer(RR(query.q.qname, QTYPE.A, rdata=A(self.ip), ttl=60))
        return None if self.is_silent else bytes(reply.pack())

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer the queries of one TCP connection."""
        self.writers.add(writer)
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                if (answer := self.answer(await upstream.read_framed(reader))) is not None:
                    writer.write(upstream.framed(answer))
        writer.close()


class Loopback:
    """Resolvers on addresses of the loopback interface, on a free port in place of 53."""

    def __init__(self, port: int) -> None:
        self.port = port
        self._closing = contextlib.AsyncExitStack()
        self._fakes: list[FakeResolver] = []

    async def add(self, address: str, fake: FakeResolver) -> FakeResolver:
        """Run a resolver on an address."""
        loop = asyncio.get_running_loop()
        transport, _ = await loop.create_datagram_endpoint(lambda: fake, (address, self.port))
        self._closing.callback(transport.close)
        tcp = await asyncio.start_server(fake.serve, address, self.port)
        self._closing.callback(tcp.close)
        self._fakes.append(fake)
        return fake

    async def close(self) -> None:
        """End all resolvers."""
        await self._closing.aclose()
        for writer in [writer for fake in self._fakes for writer in fake.writers]:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()
        await asyncio.sleep(0.02)  # for the other ends


@pytest.fixture
def free_port() -> int:
    """Return a port that is free by UDP and TCP, and that the kernel gives to no client."""
    while True:
        port = random.randrange(10_000, 32_000)  # below net.ipv4.ip_local_port_range
        with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.socket() as tcp:
            try:
                for each in (udp, tcp):
                    each.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port


@pytest.fixture
async def loopback(monkeypatch: pytest.MonkeyPatch, free_port: int) -> AsyncIterator[Loopback]:
    """Return a place for resolvers that forwarded queries reach."""
    monkeypatch.setattr(upstream, "PORT", free_port)
    place = Loopback(free_port)
    yield place
    await place.close()
