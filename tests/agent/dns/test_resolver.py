"""Names and addresses are resolved for a DNS client and sent in DNS messages."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import struct
from dataclasses import replace

import pytest
from dnslib import QTYPE, RCODE, DNSRecord
from overlay import limits
from overlay.agent.dns.resolver import Resolver, address_of_reverse
from overlay.agent.dns.server import DnsServer
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import CustomRecord
from overlay.model import (
    Endpoint,
    Ip,
    Mac,
    Network,
    NodeId,
    Subnet,
    Vni,
    parse_ip,
)

ALIVE, DEAD = NodeId(b"a" * 16), NodeId(b"d" * 16)
CLIENT = parse_ip("10.1.0.9")


def subnet(text: str) -> Subnet:
    """Return a /16 whose gateway is its first address."""
    base = parse_ip(text)
    return Subnet(base, 16, Ip(base[:3] + b"\x01"))


BLUE = Network(Vni(1), "blue", (subnet("10.1.0.0"),), ALIVE)
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

    def node_state(self, node_id: NodeId) -> MemberState:
        """Return the state of a node."""
        return MemberState.DEAD if node_id == DEAD else MemberState.ALIVE


class Clients:
    """DNS clients that are on the network of their query, and on others."""

    def __init__(self, *others: Network) -> None:
        self._others = others

    def networks(self, network: Network, _ip: Ip) -> list[Network]:
        """Return the networks of a client."""
        return [network, *self._others]


def resolver(*others: Network, records: Records | None = None) -> Resolver:
    """Return a resolver for a client that is on further networks, besides that of its query."""
    return Resolver(records or Records(), Clients(*others))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("router", ["10.1.0.1", "192.168.7.1"]),
        ("web", ["10.1.0.2"]),
        ("WEB.", ["10.1.0.2"]),
        ("web2", ["10.1.0.3"]),
        ("web.blue.overlay", ["10.1.0.2"]),
        ("web.overlay", ["10.1.0.2"]),
        ("www", ["10.1.0.2", "10.1.0.3"]),
        ("ghost.blue.overlay", []),
        ("db.red.overlay", []),
        ("nobody.overlay", []),
    ],
)
def test_names_on_the_clients_networks_are_resolved(asked: str, found: list[str]) -> None:
    """Names, qualified names and aliases resolve; dead nodes and foreign networks do not."""
    answer = resolver().forward(BLUE, CLIENT, asked)

    assert answer is not None
    assert [parse_ip(text) for text in found] == list(answer.ips)


def test_a_networks_name_may_have_dots() -> None:
    """Everything between the container's name and the domain is the network's name."""
    dotted = replace(BLUE, name="blue.Prod")

    for asked in ("web.blue.prod.overlay", "www.BLUE.prod.overlay."):
        answer = resolver().forward(dotted, CLIENT, asked)
        assert answer is not None
        assert parse_ip("10.1.0.2") in answer.ips
    of_network = resolver().forward(dotted, CLIENT, "blue.prod.overlay")
    assert of_network is not None
    assert (of_network.exists, of_network.ips) == (True, ())


def test_unknown_bare_names_go_to_the_hosts_resolvers() -> None:
    """A bare name that no endpoint has is not answered here."""
    assert resolver().forward(BLUE, CLIENT, "example.org") is None


def test_a_container_on_two_networks_sees_both() -> None:
    """Names on every network of the client are resolved."""
    answer = resolver(RED).forward(BLUE, CLIENT, "db.red.overlay")

    assert answer is not None
    assert answer.ips == (parse_ip("10.2.0.2"),)


def test_addresses_resolve_to_full_names() -> None:
    """A reverse query has the full name; the host's resolvers answer for other subnets."""
    answer = resolver().reverse(BLUE, CLIENT, "2.0.1.10.in-addr.arpa.")

    assert answer is not None
    assert answer.names == ("web.blue.overlay",)
    assert resolver().reverse(BLUE, CLIENT, "8.8.8.8.in-addr.arpa.") is None

    custom = resolver().reverse(BLUE, CLIENT, "1.7.168.192.in-addr.arpa.")
    assert custom is not None
    assert custom.names == ("router.blue.overlay",)


def test_reverse_names_of_ipv6_are_read() -> None:
    """32 reversed digits are an IPv6 address; other names in ip6.arpa are not."""
    name = ".".join(reversed(parse_ip("fd00::12").hex())) + ".ip6.arpa"

    assert address_of_reverse(name) == parse_ip("fd00::12")
    assert address_of_reverse("1.2.ip6.arpa") is None
    assert address_of_reverse("x.in-addr.arpa") is None


def server() -> DnsServer:
    """Return a server of blue that is not bound to anything."""
    return DnsServer(BLUE, resolver(), random.Random(1), lambda _network, _ip: [])


async def test_an_answer_lives_for_five_seconds() -> None:
    """The answer to a query is an A record with a TTL of 5 seconds."""
    raw = await server().answer(
        DNSRecord.question("web.blue.overlay").pack(), CLIENT, size_max=1232
    )

    assert raw is not None
    reply = DNSRecord.parse(raw)
    assert [(str(rr.rdata), rr.ttl) for rr in reply.rr] == [("10.1.0.2", 5)]


async def test_a_name_without_ipv6_has_an_empty_answer() -> None:
    """The AAAA answer for an IPv4-only name is empty, not NXDOMAIN, so resolvers still use A."""
    question = DNSRecord.question("web.blue.overlay", "AAAA").pack()

    raw = await server().answer(question, CLIENT, size_max=1232)

    assert raw is not None
    reply = DNSRecord.parse(raw)
    assert (reply.header.rcode, reply.rr) == (RCODE.NOERROR, [])


async def test_an_unknown_name_in_the_domain_does_not_exist() -> None:
    """Queries for names in the overlay's domain are never forwarded."""
    question = DNSRecord.question("nobody.overlay").pack()

    raw = await server().answer(question, CLIENT, size_max=1232)

    assert raw is not None
    assert DNSRecord.parse(raw).header.rcode == RCODE.NXDOMAIN


@pytest.mark.parametrize("junk", [b"", b"\0", b"\xff" * 11, b"\xff" * 40, bytes(12)])
async def test_malformed_queries_get_no_answer(junk: bytes) -> None:
    """A datagram that is not a query is dropped."""
    assert await server().answer(junk, CLIENT, size_max=1232) is None


async def test_an_edns_query_gets_an_edns_answer() -> None:
    """The answer to a query with EDNS has an OPT record (RFC 6891 section 6.1.1)."""
    question = DNSRecord.question("web")
    from dnslib import EDNS0  # noqa: PLC0415 - only here

    question.add_ar(EDNS0(udp_len=4096))

    raw = await server().answer(question.pack(), CLIENT, size_max=1232)

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


def test_of_duplicate_names_the_lowest_id_is_resolved() -> None:
    """The endpoint with the lowest id has the name, on every node; an alias may be shared."""

    class Twice(Records):
        def endpoints(self, vni: int) -> list[tuple[NodeId, Endpoint]]:
            one = replace(endpoint(1, "web", "10.1.0.3", "www"), endpoint_id=b"2" * 8)
            two = replace(endpoint(1, "Web", "10.1.0.2", "www"), endpoint_id=b"1" * 8)
            return [(ALIVE, item) for item in (one, two) if item.vni == vni]

    known = resolver(records=Twice())
    by_name, by_alias = (known.forward(BLUE, CLIENT, name) for name in ("web", "www"))

    assert by_name is not None
    assert by_name.ips == (parse_ip("10.1.0.2"),)
    assert by_alias is not None
    assert len(by_alias.ips) == 2


def test_listed_names_have_the_addresses_of_answers() -> None:
    """The list of a network's names has the addresses that queries for them return."""
    listed = resolver().all_names(BLUE)

    assert list(listed) == ["router", "web", "web2", "www"]
    for name, ips in listed.items():
        answer = resolver().lookup([BLUE], name)
        assert answer is not None
        assert answer.ips == ips


def test_of_duplicate_names_the_lowest_id_is_listed() -> None:
    """The endpoint with the lowest id has the name, whatever the order of the records."""
    first = replace(endpoint(1, "web", "10.1.0.7"), endpoint_id=b"a" * 8)
    second = replace(endpoint(1, "WEB", "10.1.0.8"), endpoint_id=b"b" * 8)

    class Twice(Records):
        def endpoints(self, vni: int) -> list[tuple[NodeId, Endpoint]]:
            return [(ALIVE, second), (ALIVE, first)] if vni == BLUE.vni else []

    twice = resolver(records=Twice())

    answer = twice.lookup([BLUE], "web")
    assert answer is not None
    assert twice.all_names(BLUE)["web"] == answer.ips == (parse_ip("10.1.0.7"),)
