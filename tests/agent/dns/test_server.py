"""A DNS server answers queries in DNS messages, and forwards only what may leave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct

import pytest
from dnslib import EDNS0, OPCODE, QTYPE, RCODE, RR, A, DNSRecord
from overlay import limits
from overlay.agent.dns.server import DnsServer
from overlay.model import Network
from tests.agent.dns.conftest import (
    CLIENT,
    RED,
    SHUT,
    FakeResolver,
    Loopback,
    server,
)

OUTSIDE = "secret.example.org"


async def asked(serving: DnsServer, query: DNSRecord) -> DNSRecord:
    """Return a server's answer to a query by UDP."""
    raw = await serving.answer(query.pack(), CLIENT, by_tcp=False)
    assert raw is not None
    return DNSRecord.parse(raw)


async def test_an_answer_lives_for_five_seconds() -> None:
    """The answer to a query is an A record with a TTL of 5 seconds."""
    raw = await server().answer(DNSRecord.question("web.blue.overlay").pack(), CLIENT, by_tcp=False)

    assert raw is not None
    reply = DNSRecord.parse(raw)
    assert [(str(rr.rdata), rr.ttl) for rr in reply.rr] == [("10.1.0.2", 5)]


async def test_a_name_without_ipv6_has_an_empty_answer() -> None:
    """The AAAA answer for an IPv4-only name is empty, not NXDOMAIN, so resolvers still use A."""
    question = DNSRecord.question("web.blue.overlay", "AAAA").pack()

    raw = await server().answer(question, CLIENT, by_tcp=False)

    assert raw is not None
    reply = DNSRecord.parse(raw)
    assert (reply.header.rcode, reply.rr) == (RCODE.NOERROR, [])


async def test_an_unknown_name_in_the_domain_does_not_exist() -> None:
    """Queries for names in the overlay's domain are never forwarded."""
    question = DNSRecord.question("nobody.overlay").pack()

    raw = await server().answer(question, CLIENT, by_tcp=False)

    assert raw is not None
    assert DNSRecord.parse(raw).header.rcode == RCODE.NXDOMAIN


@pytest.mark.parametrize("junk", [b"", b"\0", b"\xff" * 11, b"\xff" * 40, bytes(12)])
async def test_malformed_queries_get_no_answer(junk: bytes) -> None:
    """A datagram that is not a query is dropped."""
    assert await server().answer(junk, CLIENT, by_tcp=False) is None


async def test_an_edns_query_gets_an_edns_answer() -> None:
    """The answer to a query with EDNS has an OPT record (RFC 6891 section 6.1.1)."""
    question = DNSRecord.question("web")
    question.add_ar(EDNS0(udp_len=4096))

    raw = await server().answer(question.pack(), CLIENT, by_tcp=False)

    assert raw is not None
    assert [extra.rtype for extra in DNSRecord.parse(raw).ar] == [QTYPE.OPT]


async def test_one_client_cannot_use_up_all_connections() -> None:
    """Idle connections above a client's limit are closed; another client is still answered."""
    udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
    for each in (udp, tcp):
        each.bind(("127.0.0.1", 0))
        each.setblocking(False)
    tcp.listen()
    place = tcp.getsockname()
    serving = server()
    await serving.start(udp, tcp)
    loop = asyncio.get_running_loop()
    silent = [socket.create_connection(place, source_address=("127.0.0.2", 0)) for _ in range(64)]
    closed = 0
    try:
        reader, writer = await asyncio.open_connection(*place)
        raw = DNSRecord.question("web.blue.overlay").pack()
        writer.write(struct.pack("!H", len(raw)) + raw)
        async with asyncio.timeout(20):
            (size,) = struct.unpack("!H", await reader.readexactly(2))
            assert DNSRecord.parse(await reader.readexactly(size)).rr
        writer.close()
        await writer.wait_closed()
        assert serving._streams.total() <= limits.DNS_STREAMS_PER_CLIENT_MAX + 1
        async with asyncio.timeout(20):
            for each in silent:
                each.setblocking(False)
                with contextlib.suppress(ConnectionError):
                    assert await loop.sock_recv(each, 1) == b""
                closed += 1
        assert closed == len(silent), "connections that stay idle are closed, too"
    finally:
        for each in silent:
            each.close()
        serving.close()


# --- what may leave ---------------------------------------------------------------------


@pytest.mark.parametrize("name", [OUTSIDE, "8.8.8.8.in-addr.arpa", "nobody"])
async def test_an_internal_network_forwards_nothing(loopback: Loopback, name: str) -> None:
    """Whatever is not overlayd's own name is refused, and no resolver hears of it."""
    outside = await loopback.add("127.0.0.1", FakeResolver())
    serving = server(SHUT, resolvers=["127.0.0.1"])

    for kind in ("A", "AAAA", "PTR", "TXT"):
        answer = await asked(serving, DNSRecord.question(name, kind))
        assert (answer.header.rcode, answer.header.aa) == (RCODE.REFUSED, 0)
        assert answer.q.qname == name
    assert outside.queries == []
    own = await asked(serving, DNSRecord.question("web.shut.overlay"))
    assert str(own.short()) == "10.1.0.2"


@pytest.mark.parametrize("networks", [(SHUT, RED), (RED, SHUT)])
async def test_a_client_on_an_open_network_too_is_answered(
    loopback: Loopback, networks: tuple[Network, Network]
) -> None:
    """A container that is on a network that is not internal may ask by either."""
    await loopback.add("127.0.0.1", FakeResolver())
    serving = server(*networks, resolvers=["127.0.0.1"])

    assert (await asked(serving, DNSRecord.question(OUTSIDE))).short() == "192.0.2.7"


@pytest.mark.parametrize("opcode", ["IQUERY", "STATUS", "NOTIFY", "UPDATE", "DSO"])
async def test_only_queries_are_forwarded(loopback: Loopback, opcode: str) -> None:
    """Other operations are not implemented; the resolver does not see this host ask for them."""
    outside = await loopback.add("127.0.0.1", FakeResolver())
    query = DNSRecord.question(OUTSIDE)
    query.header.opcode = {"DSO": 6}.get(opcode) or getattr(OPCODE, opcode)

    raw = await server(resolvers=["127.0.0.1"]).answer(query.pack(), CLIENT, by_tcp=False)

    assert raw is not None
    (number, flags, *counts) = struct.unpack("!6H", raw)
    assert (number, flags & 0xF, counts) == (query.header.id, RCODE.NOTIMP, [0] * 4)
    assert (flags >> 15, flags >> 11 & 0xF) == (1, query.header.opcode)
    assert outside.queries == []


@pytest.mark.parametrize("kind", ["AXFR", "IXFR", "ANY", "TSIG", "TKEY", "OPT", "MAILB"])
async def test_no_meta_type_is_forwarded(loopback: Loopback, kind: str) -> None:
    """A zone transfer, and whatever else is no type of a record, is refused."""
    outside = await loopback.add("127.0.0.1", FakeResolver())
    query = DNSRecord.question(OUTSIDE)
    query.q.qtype = {"MAILB": 253, "TKEY": 249}.get(kind) or getattr(QTYPE, kind)

    answer = await asked(server(resolvers=["127.0.0.1"]), query)

    assert (answer.header.rcode, outside.queries) == (RCODE.REFUSED, [])


@pytest.mark.parametrize("name", [OUTSIDE, "web.blue.overlay", "version.bind"])
@pytest.mark.parametrize("qclass", [3, 4, 254, 255])
async def test_only_the_class_in_is_served(loopback: Loopback, name: str, qclass: int) -> None:
    """A query of another class is refused, for overlayd's own names, too."""
    outside = await loopback.add("127.0.0.1", FakeResolver())
    query = DNSRecord.question(name, "TXT")
    query.q.qclass = qclass

    answer = await asked(server(resolvers=["127.0.0.1"]), query)

    assert (answer.header.rcode, outside.queries) == (RCODE.REFUSED, [])


async def test_a_query_that_carries_records_is_refused(loopback: Loopback) -> None:
    """A lookup has no answer and no authority section."""
    outside = await loopback.add("127.0.0.1", FakeResolver())
    query = DNSRecord.question(OUTSIDE)
    query.add_answer(RR(OUTSIDE, QTYPE.A, rdata=A("192.0.2.1"), ttl=1))

    answer = await asked(server(resolvers=["127.0.0.1"]), query)

    assert (answer.header.rcode, outside.queries) == (RCODE.REFUSED, [])
