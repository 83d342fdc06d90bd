"""DNS server for the containers of one network, inside its sandbox.

It listens on the gateway addresses, and on those of resolvers that containers ask by themselves
(`container_resolvers`).

Owns: UDP and TCP, and which queries this node answers. Malformed queries are dropped without an
answer. Does not: resolve names (`resolver`), know the DNS format (`query`) or query other resolvers
(`forwarder`).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import functools
import ipaddress
import random
import socket
from collections.abc import Collection
from typing import Any, Protocol, TypeAlias, cast

from dnslib import AAAA, PTR, QTYPE, RCODE, RR, SRV, A

from overlay import limits
from overlay.agent.dns import upstream
from overlay.agent.dns.query import Query, not_implemented
from overlay.agent.dns.resolver import DnsAnswer, Resolver
from overlay.model import Ip, Network, ip_text

TTL_S = 5
_RECORD_SIZE_MIN = 16  # of an A record whose name is compressed
# By size of an address; Python has no names for IP_TRANSPARENT and IPV6_TRANSPARENT.
_TRANSPARENT = {4: (socket.IPPROTO_IP, 19), 16: (socket.IPPROTO_IPV6, 75)}
_Datagram: TypeAlias = tuple[bytes, tuple[str, int], Ip | None]


class QueryForwarder(Protocol):
    """Asks other resolvers."""

    async def forward(
        self, network: Network, client: Ip, query: Query, *, by_tcp: bool, asked: Ip | None = None
    ) -> bytes:
        """Return the answer to a query; a failure if there is none."""


class DnsServer:
    """Serves one network on UDP and TCP sockets that were opened in its sandbox.

    Queries for names that are not overlayd's are forwarded. What is answered at once is bounded
    for the network, whichever of its addresses was asked.
    """

    def __init__(
        self,
        network: Network,
        resolver: Resolver,
        rng: random.Random,
        forwarder: QueryForwarder,
    ) -> None:
        self._network = network
        self._resolver = resolver
        self._rng = rng
        self._forwarder = forwarder
        self._streams: collections.Counter[Ip] = collections.Counter()
        self._handlers: set[asyncio.Task[Any]] = set()  # one per connection
        self.by_udp: dict[_Datagram, asyncio.Task[None]] = {}  # queries being answered
        self._listening: dict[Ip, tuple[asyncio.DatagramTransport, asyncio.Server]] = {}

    @property
    def addresses(self) -> Collection[Ip]:
        """The addresses on which it serves."""
        return self._listening.keys()

    async def start(self, ip: Ip, udp: socket.socket, tcp: socket.socket) -> None:
        """Serve on these sockets, which are bound to an address."""
        loop = asyncio.get_running_loop()
        asked = None if any(ip == subnet.gateway for subnet in self._network.subnets) else ip
        transport, _ = await loop.create_datagram_endpoint(lambda: _Udp(self, asked), sock=udp)
        serve = functools.partial(self._serve_stream, asked)
        self._listening[ip] = transport, await asyncio.start_server(serve, sock=tcp, limit=65536)

    def stop(self, ip: Ip) -> None:
        """Stop serving on an address; answers that are under way by TCP are still sent."""
        for listener in self._listening.pop(ip, ()):
            listener.close()

    def close(self) -> None:
        """Stop serving."""
        for ip in list(self._listening):
            self.stop(ip)
        for handler in self._handlers:
            handler.cancel()

    # --- questions ----------------------------------------------------------------------

    async def answer(
        self, raw: bytes, client: Ip, *, by_tcp: bool, asked: Ip | None = None
    ) -> bytes | None:
        """Return the message to send back to a client; None to send nothing.

        `asked` is the resolver that the client meant, if it did not ask the gateway.
        """
        refusal = not_implemented(raw)
        query = None if refusal else Query.parse(raw)
        if query is None:
            return refusal
        if not query.is_lookup:
            return query.failure(RCODE.REFUSED)
        found = self._own_answer(query, client)
        if found is None:
            return await self._forwarder.forward(
                self._network, client, query, by_tcp=by_tcp, asked=asked
            )
        size = query.own_size(by_tcp=by_tcp)
        code = RCODE.NOERROR if found.exists else RCODE.NXDOMAIN
        return query.answer(self._records(query, found, size), size, code)

    def _own_answer(self, query: Query, client: Ip) -> DnsAnswer | None:
        """Return what this node's records say; None if another resolver must answer."""
        resolvers = {"PTR": self._resolver.reverse, "SRV": self._resolver.service_records}
        resolve = resolvers.get(query.kind, self._resolver.forward)
        return resolve(self._network, client, query.name)

    def _records(self, query: Query, found: DnsAnswer, size: int) -> list[RR]:
        """Return the records of an answer in random order: clients use the first of an alias."""
        name, kind = query.name, query.kind
        if kind == "PTR":
            return [RR(name, QTYPE.PTR, rdata=PTR(item), ttl=TTL_S) for item in found.names]
        if kind == "SRV":
            return [
                RR(name, QTYPE.SRV, rdata=SRV(0, each.weight, each.port, each.target), ttl=TTL_S)
                for each in found.services
            ]
        wanted = [ip for ip in found.ips if kind in ("ANY", "A" if len(ip) == 4 else "AAAA")]
        self._rng.shuffle(wanted)
        return [
            RR(name, QTYPE.A, rdata=A(ip_text(ip)), ttl=TTL_S)
            if len(ip) == 4
            else RR(name, QTYPE.AAAA, rdata=AAAA(ip_text(ip)), ttl=TTL_S)
            for ip in wanted[: size // _RECORD_SIZE_MIN + 1]
        ]

    async def _serve_stream(
        self, asked: Ip | None, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer the queries of one connection, in the order in which the answers are there.

        C libraries send the queries for both families at once (RFC 7766 section 6.2.1.1).
        """
        peer = writer.get_extra_info("peername")
        client = None if peer is None else Ip(ipaddress.ip_address(peer[0]).packed)
        if client is None or not self._has_room(client):  # disconnected already, or too many
            writer.transport.abort()
            return
        self._streams[client] += 1
        handler = cast("asyncio.Task[Any]", asyncio.current_task())
        self._handlers.add(handler)
        try:
            async with asyncio.TaskGroup() as answers:
                room = asyncio.Semaphore(limits.DNS_STREAM_QUESTIONS_MAX)
                with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                    async with asyncio.timeout(limits.DNS_STREAM_LIFETIME_S):
                        while True:
                            await room.acquire()
                            async with asyncio.timeout(limits.DNS_STREAM_IDLE_S):
                                raw = await upstream.read_framed(reader)
                            answering = answers.create_task(self._reply(raw, client, asked, writer))
                            answering.add_done_callback(lambda _: room.release())
        finally:
            self._streams -= collections.Counter({client: 1})
            self._handlers.discard(handler)
            writer.close()

    async def _reply(
        self, raw: bytes, client: Ip, asked: Ip | None, writer: asyncio.StreamWriter
    ) -> None:
        """Answer one query of a connection; close it if the client does not read."""
        answer = await self.answer(raw, client, by_tcp=True, asked=asked)
        if answer is None:
            return
        writer.write(upstream.framed(answer))
        try:
            async with asyncio.timeout(limits.DNS_STREAM_IDLE_S):
                await writer.drain()
        except (OSError, TimeoutError):
            writer.transport.abort()

    def _has_room(self, client: Ip) -> bool:
        """Return whether the client may have one more connection."""
        if self._streams.total() >= limits.DNS_STREAMS_MAX:
            return False
        return self._streams[client] < limits.DNS_STREAMS_PER_CLIENT_MAX


class _Udp(asyncio.DatagramProtocol):
    """Passes datagrams to the server; drops them above the limit of pending queries."""

    def __init__(self, server: DnsServer, asked: Ip | None) -> None:
        self._server = server
        self._asked = asked
        self._transport: asyncio.DatagramTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The selector loop's transport has the methods of one, but not the base class.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        query, tasks = (data, addr, self._asked), self._server.by_udp
        if len(tasks) >= limits.DNS_QUESTIONS_MAX or query in tasks:
            return  # a query that is sent again is being answered already
        tasks[query] = asyncio.get_running_loop().create_task(self._reply(data, addr))
        tasks[query].add_done_callback(lambda _: tasks.pop(query))

    async def _reply(self, data: bytes, addr: tuple[str, int]) -> None:
        client = Ip(ipaddress.ip_address(addr[0].partition("%")[0]).packed)
        answer = await self._server.answer(data, client, by_tcp=False, asked=self._asked)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)


def bound_sockets(ip: Ip, *, transparent: bool) -> tuple[socket.socket, socket.socket]:
    """Return a UDP and a TCP socket on an address; call it inside the sandbox.

    With `transparent` the address is that of a host elsewhere (ip(7), IP_TRANSPARENT). Raises
    OSError if the address is missing or another process uses the port.
    """
    family = socket.AF_INET if len(ip) == 4 else socket.AF_INET6
    flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    udp = socket.socket(family, socket.SOCK_DGRAM | flags)
    tcp = socket.socket(family, socket.SOCK_STREAM | flags)
    try:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if transparent:
            for each in (udp, tcp):
                each.setsockopt(*_TRANSPARENT[len(ip)], 1)
        udp.bind((ip_text(ip), upstream.PORT))
        tcp.bind((ip_text(ip), upstream.PORT))
        tcp.listen(64)
    except OSError:
        udp.close()
        tcp.close()
        raise
    return udp, tcp
