"""A DNS server answers queries in DNS messages, and forwards only what may leave."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator

import pytest
from dnslib import EDNS0, OPCODE, QTYPE, RCODE, RR, A, DNSRecord
from overlay import limits
from overlay.agent.dns import upstream
from overlay.agent.dns.server import DnsServer
from overlay.agent.resolvers import resolv_conf
from overlay.model import Endpoint, Network, NodeId, parse_ip
from tests.agent.conftest import until
from tests.agent.dns.conftest import (
    ALIVE,
    CLIENT,
    RED,
    SHUT,
    FakeResolver,
    Loopback,
    Records,
    endpoint,
    server,
)

OUTSIDE = "secret.example.org"
GATEWAY = parse_ip("10.1.0.1")


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
    await serving.start(GATEWAY, udp, tcp)
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


# --- large answers ----------------------------------------------------------------------


class Crowd(Records):
    """A directory of many endpoints that share an alias."""

    def __init__(self, count: int) -> None:
        self._count = count

    def endpoints(self, vni: int) -> list[tuple[NodeId, Endpoint]]:
        """Return the endpoints."""
        ips = [f"10.1.{at // 200}.{at % 200 + 1}" for at in range(self._count)]
        return [(ALIVE, endpoint(vni, f"c{at}", ip, "crowd")) for at, ip in enumerate(ips)]


@pytest.mark.parametrize(("edns", "size"), [(None, 512), (100, 512), (600, 600), (4096, 1232)])
async def test_a_truncated_answer_has_its_question(edns: int | None, size: int) -> None:
    """It has as many records as the client accepts, and the same question as the query."""
    query = DNSRecord.question("CRowd.overlay")
    if edns is not None:
        query.add_ar(EDNS0(udp_len=edns))

    raw = await server(records=Crowd(100)).answer(query.pack(), CLIENT, by_tcp=False)

    assert raw is not None
    answer = DNSRecord.parse(raw)
    assert (answer.header.tc, str(answer.q.qname)) == (1, "CRowd.overlay.")
    assert size - 16 < len(raw) <= size
    assert [extra.rtype for extra in answer.ar] == ([] if edns is None else [QTYPE.OPT])


async def test_an_answer_that_fits_is_not_truncated() -> None:
    """30 addresses fit into 512 bytes, 70 into 1232; the rest comes by TCP."""
    for count, edns, by_tcp in ((29, 0, False), (70, 4096, False), (1_000, 0, True)):
        query = DNSRecord.question("crowd.overlay")
        query.add_ar(EDNS0(udp_len=edns))
        raw = await server(records=Crowd(count)).answer(query.pack(), CLIENT, by_tcp=by_tcp)
        assert raw is not None
        answer = DNSRecord.parse(raw)
        assert (answer.header.tc, len(answer.rr)) == (0, count)


async def test_an_answer_too_large_for_tcp_is_cut() -> None:
    """As many addresses as a message holds; it is not marked, for nobody could ask again."""
    query = DNSRecord.question("crowd.overlay")

    raw = await server(records=Crowd(5_000)).answer(query.pack(), CLIENT, by_tcp=True)

    assert raw is not None
    answer = DNSRecord.parse(raw)
    assert (answer.header.tc, 65_535 - 16 < len(raw) <= 65_535) == (0, True)


async def test_answers_rotate() -> None:
    """Each endpoint of an alias comes first now and then, in truncated answers, too."""
    for count in (4, 60):
        serving = server(records=Crowd(count))
        answers = [await asked(serving, DNSRecord.question("crowd.overlay")) for _ in range(600)]
        assert len({str(answer.rr[0].rdata) for answer in answers}) == count


# --- connections ------------------------------------------------------------------------


@pytest.fixture
async def place(loopback: Loopback) -> AsyncIterator[tuple[str, int]]:
    """Serve blue by TCP; return the address. Its clients' resolver is silent for one name."""

    class Slow(FakeResolver):
        def answer(self, raw: bytes) -> bytes | None:
            return None if b"slow" in raw else super().answer(raw)

    await loopback.add("127.0.0.1", Slow())
    udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
    for each in (udp, tcp):
        each.bind(("127.0.0.1", 0))
        each.setblocking(False)
    tcp.listen()
    serving = server(records=Crowd(100), resolvers=["127.0.0.1"])
    await serving.start(GATEWAY, udp, tcp)
    yield tcp.getsockname()
    serving.close()
    await until(lambda: not serving._handlers)


@contextlib.asynccontextmanager
async def connected(
    place: tuple[str, int],
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """Open a connection, and close it at the end."""
    reader, writer = await asyncio.open_connection(*place)
    try:
        yield reader, writer
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def test_a_connection_takes_several_queries(place: tuple[str, int]) -> None:
    """Queries that are sent at once are all answered, as are those that follow."""
    async with connected(place) as (reader, writer), asyncio.timeout(60):
        for _ in range(3):
            queries = [DNSRecord.question("crowd.overlay", kind) for kind in ("A", "AAAA")]
            writer.write(b"".join(upstream.framed(query.pack()) for query in queries))
            answers = [DNSRecord.parse(await upstream.read_framed(reader)) for _ in queries]
            counts = {answer.header.id: len(answer.rr) for answer in answers}
            assert counts == {queries[0].header.id: 100, queries[1].header.id: 0}


async def test_a_slow_query_holds_up_no_other(place: tuple[str, int]) -> None:
    """The answer to a later query of the connection comes first."""
    queries = [DNSRecord.question(name) for name in ("slow.example.org", "crowd.overlay")]
    async with connected(place) as (reader, writer), asyncio.timeout(60):
        writer.write(b"".join(upstream.framed(query.pack()) for query in queries))
        answer = DNSRecord.parse(await upstream.read_framed(reader))

    assert answer.header.id == queries[1].header.id


async def test_connections_that_ended_count_for_nothing(place: tuple[str, int]) -> None:
    """A client may have any number of them, one after the other."""
    query = upstream.framed(DNSRecord.question("crowd.overlay").pack())
    for _ in range(limits.DNS_STREAMS_PER_CLIENT_MAX + 2):
        async with connected(place) as (reader, writer), asyncio.timeout(60):
            writer.write(query)
            writer.write_eof()
            assert len(DNSRecord.parse(await upstream.read_framed(reader)).rr) == 100
            assert await reader.read() == b""


async def test_a_client_that_sends_no_more_is_answered(place: tuple[str, int]) -> None:
    """A client may close its half of the connection; the server closes its own after that."""
    async with connected(place) as (reader, writer), asyncio.timeout(60):
        writer.write(upstream.framed(DNSRecord.question("crowd.overlay").pack()))
        writer.write_eof()
        assert len(DNSRecord.parse(await upstream.read_framed(reader)).rr) == 100
        assert await reader.read() == b""


async def test_no_connection_lives_for_ever(
    place: tuple[str, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that always has one more query is disconnected in the end."""
    monkeypatch.setattr(limits, "DNS_STREAM_LIFETIME_S", 0.3)
    async with connected(place) as (reader, writer):

        async def ask_for_ever() -> None:
            while True:
                writer.write(upstream.framed(DNSRecord.question("crowd.overlay").pack()))
                await upstream.read_framed(reader)

        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(ask_for_ever(), 10)


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


@pytest.mark.parametrize(("asked_ip", "answers"), [("127.0.0.2", "own"), ("127.0.0.3", "host")])
async def test_the_resolver_that_was_asked_is_asked(
    loopback: Loopback, monkeypatch: pytest.MonkeyPatch, asked_ip: str, answers: str
) -> None:
    """One that is the container's own; in place of a resolver of the host, any of the host's."""
    resolvers = {
        "gateway": await loopback.add("127.0.0.1", FakeResolver()),
        "own": await loopback.add("127.0.0.2", FakeResolver()),
        "host": await loopback.add("127.0.0.4", FakeResolver()),
    }
    monkeypatch.setattr(resolv_conf, "host_resolvers", lambda: ["127.0.0.4", "127.0.0.3"])
    serving = server(RED, resolvers=["127.0.0.1"])
    raw = DNSRecord.question(OUTSIDE).pack()

    for ip, wanted in ((parse_ip(asked_ip), answers), (None, "gateway")):
        before = {name: len(each.queries) for name, each in resolvers.items()}
        assert await serving.answer(raw, CLIENT, by_tcp=False, asked=ip) is not None
        after = {name: len(each.queries) for name, each in resolvers.items()}
        assert {name for name in after if after[name] > before[name]} == {wanted}


async def test_in_a_resolvers_place_own_names_come_first(loopback: Loopback) -> None:
    """A container's name is answered from the records, and an internal network forwards nothing."""
    outside = await loopback.add("127.0.0.2", FakeResolver())
    place = parse_ip("127.0.0.2")

    own = await server().answer(DNSRecord.question("web").pack(), CLIENT, by_tcp=False, asked=place)
    shut = await server(SHUT).answer(
        DNSRecord.question(OUTSIDE).pack(), CLIENT, by_tcp=False, asked=place
    )

    assert own is not None
    assert str(DNSRecord.parse(own).short()) == "10.1.0.2"
    assert shut is not None
    assert DNSRecord.parse(shut).header.rcode == RCODE.REFUSED
    assert outside.queries == []


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


async def test_one_clients_flood_leaves_room_for_others(loopback: Loopback) -> None:
    """A container with many unanswered queries is refused more; another one is answered."""
    slow = await loopback.add("127.0.0.1", FakeResolver(is_silent=True))
    serving = server(resolvers=["127.0.0.1"])
    flood = [
        asyncio.create_task(
            serving.answer(DNSRecord.question(f"n{at}.org").pack(), CLIENT, by_tcp=False)
        )
        for at in range(300)
    ]
    try:
        await until(lambda: len(slow.queries) == limits.DNS_FORWARDS_PER_CLIENT_MAX)
        refused = [DNSRecord.parse(task.result() or b"") for task in flood if task.done()]
        assert len(refused) == 300 - limits.DNS_FORWARDS_PER_CLIENT_MAX
        assert {answer.header.rcode for answer in refused} == {RCODE.REFUSED}

        slow.is_silent = False
        query = DNSRecord.question(OUTSIDE).pack()
        raw = await serving.answer(query, parse_ip("10.1.0.10"), by_tcp=False)
        assert raw is not None
        assert DNSRecord.parse(raw).short() == "192.0.2.7"
        assert (await asked(serving, DNSRecord.question("web.overlay"))).rr
    finally:
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)
    assert (await asked(serving, DNSRecord.question(OUTSIDE))).short() == "192.0.2.7"


async def test_a_query_sent_again_is_forwarded_once(loopback: Loopback) -> None:
    """A client that asks again while its query waits takes no more of its share."""
    slow = await loopback.add("127.0.0.1", FakeResolver(is_silent=True))
    udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
    for each in (udp, tcp):
        each.bind(("127.0.0.1", 0))
        each.setblocking(False)
    serving = server(resolvers=["127.0.0.1"])
    await serving.start(GATEWAY, udp, tcp)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(udp.getsockname())
        for name in (OUTSIDE, OUTSIDE, OUTSIDE, "last.org"):
            query = DNSRecord.question(name)
            query.header.id = 7
            client.send(query.pack())
        await until(lambda: len(slow.queries) >= 2)
    serving.close()

    assert [str(query.q.qname).lower() for query in slow.queries[:2]] == [
        f"{OUTSIDE}.",
        "last.org.",
    ]
