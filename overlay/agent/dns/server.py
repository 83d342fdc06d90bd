"""DNS server for the containers of one network, inside its sandbox on the gateway address.

Owns: the DNS format (by dnslib), truncation, UDP and TCP. Malformed queries are dropped without an
answer. Does not: resolve names (`resolver`), query other resolvers (`upstream`).
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import ipaddress
import random
import socket
import struct
from collections.abc import Callable, Sequence
from typing import cast

from dnslib import AAAA, EDNS0, PTR, QTYPE, RCODE, RR, A, DNSRecord
from dnslib.dns import DNSError

from overlay import limits
from overlay.agent.dns import upstream
from overlay.agent.dns.resolver import DnsAnswer, Resolver
from overlay.model import Ip, Network, ip_text

TTL_S = 5
_UDP_SIZE_DEFAULT = 512  # RFC 1035 section 4.2.1
_UDP_SIZE_MAX = 1232  # fits any path; RFC 6891 allows less than the client accepts
_STREAM_SIZE_MAX = 65535  # RFC 1035 section 4.2.2


class DnsServer:
    """Serves one network on a UDP and a TCP socket that were opened in its sandbox.

    `resolvers` returns the upstream resolvers for a client, by its address on the network.
    """

    def __init__(
        self,
        network: Network,
        resolver: Resolver,
        rng: random.Random,
        resolvers: Callable[[Network, Ip], Sequence[str]],
    ) -> None:
        self._network = network
        self._resolver = resolver
        self._rng = rng
        self._resolvers = resolvers
        self._forwarding = 0
        self._streams: collections.Counter[Ip] = collections.Counter()
        self._transport: asyncio.DatagramTransport | None = None
        self._tcp: asyncio.Server | None = None

    async def start(self, udp: socket.socket, tcp: socket.socket) -> None:
        """Serve on these bound sockets."""
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_datagram_endpoint(lambda: _Udp(self), sock=udp)
        self._tcp = await asyncio.start_server(self._serve_stream, sock=tcp, limit=65536)

    def close(self) -> None:
        """Stop serving."""
        if self._transport is not None:
            self._transport.close()
        if self._tcp is not None:
            self._tcp.close()

    # --- questions ----------------------------------------------------------------------

    def own_answer(self, raw: bytes, client: Ip) -> DNSRecord | None:
        """Return the answer to a query; None if another resolver must answer it.

        Raises DNSError if this is not a query with exactly one question.
        """
        question = DNSRecord.parse(raw)
        if question.header.qr or len(question.questions) != 1:
            raise DNSError("not a query with one question")
        name = str(question.q.qname)
        kind = QTYPE.get(question.q.qtype, "")
        reverse = kind == "PTR"
        resolve = self._resolver.reverse if reverse else self._resolver.forward
        found = resolve(self._network, client, name)
        if found is None:
            return None
        reply: DNSRecord = question.reply(ra=1, aa=1)
        if not found.exists:
            reply.header.rcode = RCODE.NXDOMAIN
        for record in self._records(name, kind, found):
            reply.add_answer(record)
        if any(extra.rtype == QTYPE.OPT for extra in question.ar):
            reply.add_ar(EDNS0(udp_len=_UDP_SIZE_MAX))
        return reply

    def _records(self, name: str, kind: str, found: DnsAnswer) -> list[RR]:
        if kind == "PTR":
            return [RR(name, QTYPE.PTR, rdata=PTR(item), ttl=TTL_S) for item in found.names]
        records = [
            RR(name, QTYPE.A, rdata=A(ip_text(ip)), ttl=TTL_S)
            if len(ip) == 4
            else RR(name, QTYPE.AAAA, rdata=AAAA(ip_text(ip)), ttl=TTL_S)
            for ip in found.ips
        ]
        wanted = [item for item in records if kind in ("ANY", QTYPE[item.rtype])]
        self._rng.shuffle(wanted)  # round robin among endpoints that share an alias
        return wanted

    async def answer(self, raw: bytes, client: Ip, *, size_max: int) -> bytes | None:
        """Return the message to send back, of `size_max` bytes at most; None to send nothing."""
        try:
            reply = self.own_answer(raw, client)
            question = DNSRecord.parse(raw)
        except (DNSError, ValueError, IndexError, struct.error):
            return None
        if reply is None:
            by_stream = size_max == _STREAM_SIZE_MAX
            return await self._forwarded(raw, question, client, by_stream=by_stream)
        packed = bytes(reply.pack())
        allowed = min(size_max, _udp_size(question)) if size_max == _UDP_SIZE_MAX else size_max
        if len(packed) > allowed:
            packed = bytes(reply.truncate().pack())
        return packed

    async def _forwarded(
        self, raw: bytes, question: DNSRecord, client: Ip, *, by_stream: bool
    ) -> bytes:
        """Forward a query to the client's resolvers in turn; answer SERVFAIL if none answers.

        A query that came by TCP is sent by TCP, too: its answer may be too large for UDP.
        """
        failure = question.reply(ra=1, aa=0)
        failure.header.rcode = RCODE.SERVFAIL
        if self._forwarding >= limits.DNS_FORWARDS_MAX:
            failure.header.rcode = RCODE.REFUSED
            return bytes(failure.pack())
        self._forwarding += 1
        try:
            for server in self._resolvers(self._network, client):
                answer = await upstream.query(server, raw, by_tcp=by_stream)
                if answer is not None:
                    return answer
        finally:
            self._forwarding -= 1
        return bytes(failure.pack())

    async def _serve_stream(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer one query per connection: what clients send after a truncated answer."""
        peer = writer.get_extra_info("peername")
        client = None if peer is None else Ip(ipaddress.ip_address(peer[0]).packed)
        if client is None or not self._has_room(client):  # disconnected already, or too many
            writer.transport.abort()
            return
        self._streams[client] += 1
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
                async with asyncio.timeout(upstream.TIMEOUT_S * 3):
                    raw = await upstream.read_framed(reader)
                    answer = await self.answer(raw, client, size_max=_STREAM_SIZE_MAX)
                    if answer is not None:
                        writer.write(upstream.framed(answer))
                        await writer.drain()
        finally:
            self._streams -= collections.Counter({client: 1})
            writer.close()

    def _has_room(self, client: Ip) -> bool:
        """Return whether the client may have one more connection."""
        if self._streams.total() >= limits.DNS_STREAMS_MAX:
            return False
        return self._streams[client] < limits.DNS_STREAMS_PER_CLIENT_MAX


class _Udp(asyncio.DatagramProtocol):
    """Passes datagrams to the server; drops them above the limit of pending queries."""

    def __init__(self, server: DnsServer) -> None:
        self._server = server
        self._transport: asyncio.DatagramTransport | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # The selector loop's transport has the methods of one, but not the base class.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        if len(self._tasks) >= limits.DNS_QUESTIONS_MAX:
            return
        task = asyncio.get_running_loop().create_task(self._reply(data, addr))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reply(self, data: bytes, addr: tuple[str, int]) -> None:
        client = Ip(ipaddress.ip_address(addr[0].partition("%")[0]).packed)
        answer = await self._server.answer(data, client, size_max=_UDP_SIZE_MAX)
        if answer is not None and self._transport is not None:
            self._transport.sendto(answer, addr)


def bound_sockets(ip: Ip) -> tuple[socket.socket, socket.socket]:
    """Return a UDP and a TCP socket on the gateway address; call it inside the sandbox.

    Raises OSError if the address is missing or another process uses the port.
    """
    family = socket.AF_INET if len(ip) == 4 else socket.AF_INET6
    flags = socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
    udp = socket.socket(family, socket.SOCK_DGRAM | flags)
    tcp = socket.socket(family, socket.SOCK_STREAM | flags)
    try:
        tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        udp.bind((ip_text(ip), upstream.PORT))
        tcp.bind((ip_text(ip), upstream.PORT))
        tcp.listen(64)
    except OSError:
        udp.close()
        tcp.close()
        raise
    return udp, tcp


def _udp_size(question: DNSRecord) -> int:
    """Return how many bytes the client accepts in an answer (RFC 6891 section 6.2.3)."""
    for extra in question.ar:
        if extra.rtype == QTYPE.OPT:
            return max(_UDP_SIZE_DEFAULT, min(int(extra.edns_len), _UDP_SIZE_MAX))
    return _UDP_SIZE_DEFAULT
