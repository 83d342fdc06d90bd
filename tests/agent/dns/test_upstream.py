"""Queries are forwarded to other resolvers by UDP and TCP."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import cast

import pytest
from dnslib import QTYPE, RR, A, DNSHeader, DNSRecord
from overlay.agent.dns import upstream
from overlay.agent.resolvers import resolv_conf

QUERY = DNSRecord.question("www.Example.org").pack()


def answer_to(raw: bytes, ip: str) -> bytes:
    """Return the answer to a query."""
    query = DNSRecord.parse(raw)
    reply = query.reply()
    reply.add_answer(RR(query.q.qname, QTYPE.A, rdata=A(ip)))
    return bytes(reply.pack())


BY_UDP, BY_TCP = answer_to(QUERY, "192.0.2.1"), answer_to(QUERY, "192.0.2.2")


def in_case_of(query: bytes, answer: bytes) -> bytes:
    """Return an answer with the id and the question of a query."""
    return query[:2] + answer[2:12] + query[12:] + answer[len(query) :]


class Udp(asyncio.DatagramProtocol):
    """Sends answers to other queries first, then the right one."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the transport."""
        # The selector loop's transport has the methods of one, but not the base class.
        self._transport = cast("asyncio.DatagramTransport", transport)

    def datagram_received(self, data: bytes, addr: tuple[str, int]) -> None:
        """Answer a query."""
        assert data[2:].lower() == QUERY[2:].lower()
        answer = in_case_of(data, BY_UDP)
        wrong_id = bytes([data[0] ^ 1, data[1]]) + answer[2:]
        other_name = answer[:20] + b"x" + answer[21:]
        end = len(QUERY)
        other_type = answer[: end - 4] + b"\0\x1c\0\1" + answer[end:]
        other_class = answer[: end - 4] + b"\0\1\0\3" + answer[end:]
        without = DNSRecord(DNSHeader(id=int.from_bytes(data[:2], "big"), qr=1)).pack()
        for wrong in (wrong_id, other_name, other_type, other_class, without, data, b"", data[:9]):
            self._transport.sendto(wrong, addr)
        self._transport.sendto(answer, addr)


async def by_tcp(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer one query by TCP."""
    raw = await upstream.read_framed(reader)
    assert raw[2:].lower() == QUERY[2:].lower()
    writer.write(upstream.framed(in_case_of(raw, BY_TCP)))
    writer.close()


@pytest.fixture
async def udp_only(monkeypatch: pytest.MonkeyPatch, free_port: int) -> AsyncIterator[str]:
    """Run a resolver that answers only by UDP; return its address."""
    monkeypatch.setattr(upstream, "PORT", free_port)
    monkeypatch.setattr(upstream, "TCP_WAIT_S", 0.5)
    monkeypatch.setattr(upstream, "UDP_WAITS_S", (0.2, 0.3))
    loop = asyncio.get_running_loop()
    transport, _ = await loop.create_datagram_endpoint(Udp, ("127.0.0.1", free_port))
    yield "127.0.0.1"
    transport.close()


@pytest.fixture
async def resolver(udp_only: str) -> AsyncIterator[str]:
    """Run a resolver that answers by UDP and TCP; return its address."""
    server = await asyncio.start_server(by_tcp, udp_only, upstream.PORT)
    yield udp_only
    server.close()


async def test_only_an_answer_to_the_question_counts(resolver: str) -> None:
    """An answer with another id, name, type or class, or without a question, is ignored."""
    assert await upstream.query(resolver, QUERY, by_tcp=False) == BY_UDP


def answering_in(change: Callable[[bytes], bytes]) -> Callable[[Udp, bytes, tuple[str, int]], None]:
    """Return a resolver's method that answers with the question in another case."""

    def received(self: Udp, data: bytes, addr: tuple[str, int]) -> None:
        answer = in_case_of(data, BY_UDP)
        end = len(QUERY) - 4
        self._transport.sendto(answer[:12] + change(answer[12:end]) + answer[end:], addr)

    return received


async def test_an_answer_in_another_case_is_checked_by_tcp(
    resolver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A forger of answers does not know the case that was sent; TCP has the true answer."""
    monkeypatch.setattr(Udp, "datagram_received", answering_in(bytes.swapcase))

    assert await upstream.query(resolver, QUERY, by_tcp=False) == BY_TCP


async def test_a_resolver_may_lose_the_case(udp_only: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TCP there is no other answer; the client gets the case that it sent."""
    monkeypatch.setattr(Udp, "datagram_received", answering_in(bytes.lower))

    assert await upstream.query(udp_only, QUERY, by_tcp=False) == BY_UDP


async def test_the_case_of_a_forwarded_name_is_random(
    udp_only: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each query has another one, in letters only; the answer has the client's."""
    seen = set()

    def received(self: Udp, data: bytes, addr: tuple[str, int]) -> None:
        assert data[2:].lower() == QUERY[2:].lower()
        seen.add(data[12:])
        self._transport.sendto(in_case_of(data, BY_UDP), addr)

    monkeypatch.setattr(Udp, "datagram_received", received)

    for _ in range(20):
        assert await upstream.query(udp_only, QUERY, by_tcp=False) == BY_UDP
    assert len(seen) > 15


async def test_the_client_does_not_choose_the_id(
    udp_only: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The id of a forwarded query is random; the answer has the client's."""
    seen = set()

    def received(self: Udp, data: bytes, addr: tuple[str, int]) -> None:
        seen.add(data[:2])
        self._transport.sendto(in_case_of(data, BY_UDP), addr)

    monkeypatch.setattr(Udp, "datagram_received", received)

    for _ in range(20):
        assert await upstream.query(udp_only, QUERY, by_tcp=False) == BY_UDP
    assert len(seen) > 15


async def test_a_failure_may_be_without_a_question(
    udp_only: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A resolver that cannot read a query answers with a header alone."""

    def received(self: Udp, data: bytes, addr: tuple[str, int]) -> None:
        self._transport.sendto(data[:2] + b"\x80\1" + bytes(8), addr)

    monkeypatch.setattr(Udp, "datagram_received", received)

    answer = await upstream.query(udp_only, QUERY, by_tcp=False)

    assert answer == QUERY[:2] + b"\x80\1" + bytes(8)


def test_a_truncated_answer_may_be_without_a_question() -> None:
    """Some resolvers say only that TCP has the whole answer; a plain answer must have it."""
    asked = DNSRecord.question("www.example.org")
    reply = DNSRecord(DNSHeader(id=asked.header.id, qr=1, tc=1))
    accepted = upstream._is_answer(bytes(reply.pack()), bytes(asked.pack()))
    reply.header.tc = 0

    assert accepted
    assert not upstream._is_answer(bytes(reply.pack()), bytes(asked.pack()))


async def test_a_query_is_sent_by_tcp_on_request(resolver: str) -> None:
    """The answer by TCP is returned."""
    assert await upstream.query(resolver, QUERY, by_tcp=True) == BY_TCP


async def test_udp_is_used_where_tcp_fails(udp_only: str) -> None:
    """A resolver without TCP is queried by UDP."""
    answer = await upstream.query(udp_only, QUERY, by_tcp=True)

    assert answer is not None
    assert DNSRecord.parse(answer).short() == "192.0.2.1"


@pytest.mark.parametrize("by_tcp", [True, False])
async def test_a_silent_resolver_has_no_answer(udp_only: str, *, by_tcp: bool) -> None:
    """None is returned, for both families."""
    assert udp_only
    for address in ("127.0.0.2", "::1"):
        assert await upstream.query(address, QUERY, by_tcp=by_tcp) is None


def test_link_local_resolvers_keep_their_interface(tmp_path: Path) -> None:
    """The interface of an IPv6 link-local address is part of the address, as name or number."""
    path = tmp_path / "resolv.conf"
    path.write_text("nameserver fe80::1%lo\nnameserver fe80::1%1\nnameserver fe80::1%nothing\n")

    named, numbered, unknown = resolv_conf.host_resolvers(path)

    place = (socket.AF_INET6, ("fe80::1", upstream.PORT, 0, socket.if_nametoindex("lo")))
    assert upstream._place_of(named) == upstream._place_of(numbered) == place
    with pytest.raises(OSError, match=r"No such device|no interface"):
        upstream._place_of(unknown)


async def test_a_lost_query_is_sent_again(udp_only: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that answers only the second datagram is heard."""
    seen = []

    def second_only(self: Udp, data: bytes, addr: tuple[str, int]) -> None:
        seen.append(data)
        if len(seen) == 2:
            self._transport.sendto(data[:2] + BY_UDP[2:], addr)

    monkeypatch.setattr(Udp, "datagram_received", second_only)

    assert await upstream.query(udp_only, QUERY, by_tcp=False) == BY_UDP
    assert (len(seen), len(set(seen))) == (2, 1)
