"""The programs of policies judge each frame as the rules say (BPF_PROG_TEST_RUN)."""

from __future__ import annotations

import ipaddress
import os
import random
from collections.abc import Iterator

import pytest
from overlay.core.dataplane.operations import DeleteRow, PutRow
from overlay.core.dataplane.state import GATEWAY_CLASS, PolicyClassRow, VerdictRow
from overlay.kernel.bpf import numbers, syscall
from overlay.kernel.bpf.policy_maps import DeniedPacket, PolicyMaps, PolicyRow, RuleCount
from overlay.kernel.bpf.policy_programs import leaving_program
from overlay.model import parse_ip
from tests.kernel.bpf.frames import (
    ACK,
    FIN,
    ICMP,
    ICMPV6,
    SYN,
    SYN_ACK,
    TCP,
    UDP,
    datagram,
    echo,
    error,
    ethernet,
    frame,
    framed,
    packet,
    segment,
)

pytestmark = [pytest.mark.netns, pytest.mark.usefixtures("_capable")]
WEB, DB, GATEWAY, OTHER = "10.32.0.2", "10.32.0.3", "10.32.0.1", "10.32.9.9"
ANY = "0.0.0.0"  # noqa: S104 - a range, or a client's address before DHCP
WEB_6, DB_6, GATEWAY_6 = "fd32::2", "fd32::3", "fd32::1"
WEB_CLASS, DB_CLASS, WORLD = 2, 3, 9
CLASSES = [
    PolicyClassRow(parse_ip(text), length, number)
    for text, length, number in (
        (WEB, 32, WEB_CLASS), (DB, 32, DB_CLASS), (GATEWAY, 32, GATEWAY_CLASS),
        (WEB_6, 128, WEB_CLASS), (DB_6, 128, DB_CLASS), (GATEWAY_6, 128, GATEWAY_CLASS),
        (ANY, 0, WORLD), ("::", 0, WORLD),
    )
]  # fmt: skip
DENY = VerdictRow(0, 0, 0, 0, 0, allow=False)
ALLOW = DENY._replace(allow=True)
TO_DB = VerdictRow(WEB_CLASS, DB_CLASS, TCP, 5432, 16, allow=True, rule=1)
NOT_TO_DB = TO_DB._replace(allow=False, log=True, rule=2)
UDP_TO_DB = VerdictRow(WEB_CLASS, DB_CLASS, UDP, 5000, 16, allow=True, rule=3)
PING_DB = VerdictRow(WEB_CLASS, DB_CLASS, ICMP, 0, 0, allow=True, rule=4)


class Judge:
    """The maps of a sandbox's policies, and the program for what leaves."""

    def __init__(self, rows: list[VerdictRow], running: tuple[int, ...] = ()) -> None:
        self.maps = PolicyMaps(running)
        self.program = syscall.load(leaving_program(self.maps.maps, numbers.JUDGED), "judge")
        self.rows: set[PolicyRow] = set()
        self.set(rows)

    def set(self, rows: list[VerdictRow]) -> None:
        """Replace all verdicts, in one step."""
        wanted: set[PolicyRow] = {*CLASSES, *rows}
        gone = [DeleteRow(row) for row in self.rows - wanted]
        assert self.maps.apply([*gone, *(PutRow(row) for row in wanted - self.rows)]) == []
        self.rows = wanted
        assert self.maps.rows() == wanted

    def passes(self, raw: bytes) -> bool:
        """Return whether a frame passes."""
        result = syscall.run(self.program, raw)
        assert result in {-1, 2}
        return result == -1

    def close(self) -> None:
        """Close the descriptors."""
        os.close(self.program)
        self.maps.close()


@pytest.fixture
def judge() -> Iterator[Judge]:
    """Return a network that denies by default and has some rules."""
    made = Judge([DENY, TO_DB, UDP_TO_DB, PING_DB])
    yield made
    made.close()


def tcp(source: str, destination: str, ports: tuple[int, int], flags: int = SYN) -> bytes:
    """Return a frame of TCP."""
    return frame(source, destination, TCP, segment(ports, flags))


def udp(source: str, destination: str, ports: tuple[int, int]) -> bytes:
    """Return a frame of UDP."""
    return frame(source, destination, UDP, datagram(ports))


@pytest.mark.parametrize(("web", "db"), [(WEB, DB), (WEB_6, DB_6)])
def test_tcp_passes_as_rules_allow_it(judge: Judge, web: str, db: str) -> None:
    """The allowed port, in the allowed direction, and what answers it."""
    assert not judge.passes(tcp(db, web, (5432, 40000)))
    assert judge.passes(tcp(web, db, (40000, 5432)))
    assert judge.passes(tcp(db, web, (5432, 40000), SYN_ACK))
    assert judge.passes(tcp(web, db, (40000, 5432), ACK))
    assert judge.passes(tcp(db, web, (5432, 40000), FIN))

    assert not judge.passes(tcp(db, web, (5432, 40000)))  # a connection of its own
    assert not judge.passes(tcp(web, db, (40000, 5433)))
    assert not judge.passes(tcp(db, web, (40000, 5432)))
    assert judge.passes(tcp(web, db, (40000, 5432), ACK))
    assert judge.maps.counts()[1] == RuleCount(allowed=1, denied=0)


@pytest.mark.parametrize(("web", "db"), [(WEB, DB), (WEB_6, DB_6)])
def test_udp_answers_pass_only_after_a_request(judge: Judge, web: str, db: str) -> None:
    """A datagram from the server's port is no answer before."""
    assert not judge.passes(udp(db, web, (5000, 40000)))
    assert judge.passes(udp(web, db, (40000, 5000)))
    assert judge.passes(udp(db, web, (5000, 40000)))
    assert not judge.passes(udp(db, web, (5000, 40001)))
    assert not judge.passes(udp(web, db, (40000, 5001)))


@pytest.mark.parametrize(
    ("web", "db", "protocol"), [(WEB, DB, ICMP), (WEB_6, DB_6, ICMPV6)], ids=["ipv4", "ipv6"]
)
def test_echo_is_a_connection_by_its_identifier(
    judge: Judge, web: str, db: str, protocol: int
) -> None:
    """The answer passes; a request in the other direction does not."""
    ipv6 = protocol == ICMPV6

    def ping(source: str, destination: str, *, reply: bool = False) -> bytes:
        return frame(source, destination, protocol, echo(7, ipv6=ipv6, reply=reply))

    assert not judge.passes(ping(db, web, reply=True))
    assert judge.passes(ping(web, db))
    assert judge.passes(ping(db, web, reply=True))
    assert not judge.passes(ping(db, web))


@pytest.mark.parametrize(("web", "db"), [(WEB, DB), (WEB_6, DB_6)])
def test_icmp_errors_pass_about_known_connections(judge: Judge, web: str, db: str) -> None:
    """An error from any router about a packet that was let through, and no other."""
    protocol, kind = (ICMPV6, 1) if ":" in web else (ICMP, 3)
    about = packet(web, db, TCP, segment((40000, 5432)))
    other = packet(web, db, TCP, segment((40001, 5432)))
    router = "fd99::1" if ":" in web else "192.0.2.1"
    assert judge.passes(framed(about))

    assert judge.passes(frame(router, web, protocol, error(about, kind)))
    assert judge.passes(frame(db, web, protocol, error(about, kind)))
    assert not judge.passes(frame(router, web, protocol, error(other, kind)))
    assert not judge.passes(frame(router, web, protocol, error(about[:20], kind)[:20]))


def test_arp_and_discovery_and_dhcp_always_pass(judge: Judge) -> None:
    """Frames that every network needs pass, even where everything is denied."""
    judge.set([DENY])
    for kind in (133, 134, 135, 136, 143):
        assert judge.passes(frame(WEB_6, DB_6, ICMPV6, bytes([kind, 0, 0, 0]) + bytes(20)))
    assert judge.passes(ethernet(bytes(28), 0x0806))
    assert judge.passes(udp(ANY, "255.255.255.255", (68, 67)))
    assert judge.passes(udp(WEB_6, "ff02::1:2", (546, 547)))
    assert judge.passes(frame(WEB, "224.0.0.22", 2, bytes(8)))
    listener = packet(WEB_6, "ff02::16", ICMPV6, bytes([143]) + bytes(7), headers=bytes(8))
    assert judge.passes(framed(listener))
    assert not judge.passes(udp(WEB, DB, (68, 67)))
    assert not judge.passes(udp(WEB, "224.0.0.251", (5353, 5353)))


@pytest.mark.parametrize(("web", "gateway"), [(WEB, GATEWAY), (WEB_6, GATEWAY_6)])
def test_the_gateway_answers_dns_and_dhcp(judge: Judge, web: str, gateway: str) -> None:
    """Requests and their answers, the agents' probes, and nothing else."""
    judge.set([DENY])
    assert judge.passes(udp(web, gateway, (40000, 53)))
    assert judge.passes(udp(gateway, web, (53, 40000)))
    assert judge.passes(tcp(web, gateway, (40000, 53)))
    assert judge.passes(tcp(gateway, web, (53, 40000), SYN_ACK))
    assert judge.passes(udp(web, gateway, (68, 67)))
    assert judge.passes(udp(gateway, web, (67, 68)))
    assert judge.passes(udp("169.254.79.49", GATEWAY, (7949, 7949)))
    assert not judge.passes(tcp(web, gateway, (40000, 80)))
    assert not judge.passes(udp(gateway, web, (53, 40001)))
    assert judge.maps.counts() == {0: RuleCount(0, 2)}


def test_what_has_no_ports_to_trust_is_dropped(judge: Judge) -> None:
    """Also where everything is allowed."""
    judge.set([ALLOW])
    assert judge.passes(tcp(WEB, DB, (1, 2)))
    assert not judge.passes(ethernet(bytes(46), 0x88CC))  # LLDP
    inner = packet(WEB, DB, TCP, segment((1, 2)))
    assert not judge.passes(ethernet(b"\0\x0a\x08\0" + inner, 0x8100))  # VLAN 10
    for header in (0, 43, 60, 135):  # extension headers
        headers = bytes([header, 0]) + bytes(6)
        raw = packet(WEB_6, DB_6, TCP, segment((1, 2)), headers=headers)
        assert not judge.passes(framed(raw))


def test_ip_options_do_not_hide_the_ports(judge: Judge) -> None:
    """A header with options is longer, and the ports follow it."""
    for port, expected in ((5432, True), (5433, False)):
        raw = packet(WEB, DB, TCP, segment((40000, port)), options=b"\x01" * 8)
        assert judge.passes(framed(raw)) == expected


@pytest.mark.parametrize(("web", "db"), [(WEB, DB), (WEB_6, DB_6)])
def test_fragments_follow_the_first_one(judge: Judge, web: str, db: str) -> None:
    """Later ones pass after a first one that was allowed, and are dropped otherwise."""
    first = packet(web, db, UDP, datagram((40000, 5000), 64), fragment=(77, 0, True))
    later = packet(web, db, UDP, bytes(64), fragment=(77, 72, False))
    other = packet(web, db, UDP, bytes(64), fragment=(78, 72, False))
    denied = packet(web, db, UDP, datagram((40000, 5001), 64), fragment=(79, 0, True))
    rest = packet(web, db, UDP, bytes(64), fragment=(79, 72, False))

    assert [judge.passes(framed(raw)) for raw in (later, first, later, other)] == [
        False, True, True, False,
    ]  # fmt: skip
    assert [judge.passes(framed(raw)) for raw in (denied, rest)] == [False, False]
    # The first fragment of TCP must hold the flags; of a packet that is too short, there are none.
    tiny = packet(web, db, TCP, segment((40000, 5432))[:8], fragment=(80, 0, True))
    assert not judge.passes(tiny_frame(tiny))


def tiny_frame(raw: bytes) -> bytes:
    """Return a frame that ends with its packet."""
    return framed(raw)[: 14 + len(raw)]


def test_other_protocols_are_judged_without_ports(judge: Judge) -> None:
    """By the pair of classes, or by their number."""
    assert not judge.passes(frame(WEB, DB, 132, segment((1, 5432))))
    judge.set([DENY, VerdictRow(WEB_CLASS, DB_CLASS, 132, 0, 0, allow=True)])
    assert judge.passes(frame(WEB, DB, 132, segment((1, 5432))))
    assert judge.passes(frame(DB, WEB, 132, segment((5432, 1))))
    assert not judge.passes(frame(WEB, DB, 47, bytes(20)))


def test_a_revoked_connection_ends_in_both_directions(judge: Judge) -> None:
    """Also where answers would be allowed as connections of their own."""
    judge.set([ALLOW])
    frames = tcp(WEB, DB, (40000, 5432)), tcp(DB, WEB, (5432, 40000), SYN_ACK)
    assert [judge.passes(each) for each in frames] == [True, True]

    judge.set([ALLOW, NOT_TO_DB])

    answer, data = tcp(DB, WEB, (5432, 40000), ACK), tcp(WEB, DB, (40000, 5432), ACK)
    assert [judge.passes(each) for each in (answer, answer, data, answer)] == [False] * 4
    assert judge.passes(tcp(DB, WEB, (40000, 5432)))  # the other way round is allowed
    assert judge.maps.counts()[2] == RuleCount(allowed=0, denied=4)
    judge.set([ALLOW])
    assert judge.passes(data)


def test_a_change_of_rules_cuts_nothing_that_they_allow(judge: Judge) -> None:
    """Answers pass, as the connection is judged in the direction it was opened in."""
    assert judge.passes(udp(WEB, DB, (40000, 5000)))
    for rows in ([DENY, UDP_TO_DB, NOT_TO_DB], [DENY, UDP_TO_DB._replace(port=4992, port_bits=10)]):
        judge.set(rows)
        assert judge.passes(udp(DB, WEB, (5000, 40000)))
    judge.set([DENY])
    assert not judge.passes(udp(DB, WEB, (5000, 40000)))


def test_connections_from_before_the_rules_are_kept(judge: Judge) -> None:
    """TCP that is established already passes if a rule allows one direction, and none denies."""
    data, answer = tcp(WEB, DB, (40000, 5432), ACK), tcp(DB, WEB, (5432, 40000), ACK)
    assert judge.passes(answer)
    assert judge.passes(data)
    assert not judge.passes(tcp(WEB, DB, (40000, 80), ACK))

    judge.set([ALLOW, NOT_TO_DB])
    other = tcp(DB, WEB, (5432, 40001), ACK), tcp(WEB, DB, (40001, 5432), ACK)
    assert [judge.passes(each) for each in (*other, answer, data)] == [False] * 4
    assert judge.passes(tcp(WEB, DB, (40000, 80), ACK))


def test_samples_name_what_a_rule_with_a_log_denied(judge: Judge) -> None:
    """Addresses, protocol, port, and how many times."""
    judge.set([ALLOW, NOT_TO_DB])
    for frames in (3 * [tcp(WEB, DB, (40000, 5432))], [tcp(WEB_6, DB_6, (1, 5432))]):
        assert not any(judge.passes(each) for each in frames)

    assert judge.maps.denied_packets() == [
        DeniedPacket(2, parse_ip(WEB), parse_ip(DB), TCP, 5432, 3),
        DeniedPacket(2, parse_ip(WEB_6), parse_ip(DB_6), TCP, 5432, 1),
    ]
    assert judge.maps.counts()[2].denied == 4


def test_a_row_that_has_no_place_shuts_the_network(judge: Judge) -> None:
    """Nothing passes until the rows can be written, also what was established."""
    data = tcp(WEB, DB, (40000, 5432), ACK)
    assert judge.passes(tcp(WEB, DB, (40000, 5432)))
    wrong = PutRow(PolicyClassRow(parse_ip(OTHER), 32, 70_000))

    ((operation, failure),) = judge.maps.apply([wrong])

    assert (operation, failure.strerror) == (
        wrong, "more classes or rules than the kernel's maps hold",
    )  # fmt: skip
    assert [judge.maps.is_shut, judge.passes(data)] == [True, False]
    assert judge.passes(ethernet(bytes(28), 0x0806))
    assert judge.maps.apply([PutRow(PolicyClassRow(parse_ip(OTHER), 32, 7))]) == []
    assert [judge.maps.is_shut, judge.passes(data)] == [False, True]


def test_without_any_row_nothing_passes(judge: Judge) -> None:
    """A program whose maps are empty denies."""
    gone = [DeleteRow(row) for row in judge.rows]

    assert judge.maps.apply(gone) == []
    assert judge.maps.rows() == set()
    assert not judge.passes(tcp(WEB, DB, (40000, 5432)))


def test_the_next_agent_takes_the_connections_over(judge: Judge) -> None:
    """Its own program knows them, and judges them by its own rules."""
    assert judge.passes(udp(WEB, DB, (40000, 5000)))
    running = syscall.program_id(judge.program)

    following = Judge([DENY, UDP_TO_DB], (running, 0xFFFFFF0))
    empty = Judge([DENY, UDP_TO_DB])
    answer = udp(DB, WEB, (5000, 40000))
    assert [each.passes(answer) for each in (following, judge, empty, following)] == [
        True, True, False, True,
    ]  # fmt: skip
    strict = Judge([DENY], (running, syscall.program_id(following.program)))
    assert not strict.passes(answer)
    for each in (following, strict, empty):
        each.close()


def expected(rows: list[VerdictRow], classes: tuple[int, int], protocol: int, port: int) -> bool:
    """Return what the contract of the rows says of a new connection."""
    matches = [
        row
        for row in rows
        if row.prefix_length == 0
        or (
            (row.source, row.destination) == classes
            and row.protocol in {0, protocol}
            and row.port >> 16 - row.port_bits == port >> 16 - row.port_bits
        )
    ]
    return max(matches, key=lambda row: row.prefix_length).allow if matches else False


def class_of(classes: list[PolicyClassRow], text: str) -> int:
    """Return the class of an address by the longest prefix."""
    raw = parse_ip(text)
    number = int.from_bytes(raw, "big")
    matches = [
        row
        for row in classes
        if len(row.base) == len(raw)
        and (number ^ int.from_bytes(row.base, "big")) >> 8 * len(raw) - row.prefix_length == 0
    ]
    return max(matches, key=lambda row: row.prefix_length).number if matches else 0


def random_classes(draw: random.Random, hosts: list[str]) -> list[PolicyClassRow]:
    """Return ranges around some addresses, each of one class."""
    found = {}
    for host in hosts:
        for size in (16, 24, 30, 32):
            length = 4 * size if ":" in host else size
            base = ipaddress.ip_network((host, length), strict=False).network_address
            row = PolicyClassRow(parse_ip(str(base)), length, draw.randrange(2, 5))
            if draw.random() < 0.4:
                found[row.base, length] = row
    return list(found.values())


def random_verdicts(draw: random.Random) -> list[VerdictRow]:
    """Return verdicts of all lengths, and a default."""
    found = {}
    for _ in range(30):
        protocol = draw.choice([0, ICMP, TCP, UDP])
        bits = draw.choice([0, 4, 12, 16]) if protocol in {TCP, UDP} else 0
        port = (draw.randrange(8) << 12) & (0xFFFF << 16 - bits)
        pair = draw.randrange(2, 5), draw.randrange(2, 5)
        row = VerdictRow(*pair, protocol, port, bits, allow=draw.random() < 0.5)
        found[row[:5]] = row
    return [*found.values(), DENY._replace(allow=draw.random() < 0.5)]


@pytest.mark.parametrize("seed", range(8))
def test_lookups_match_the_contract_of_the_rows(judge: Judge, seed: int) -> None:
    """For random rows and packets, the kernel decides as the longest prefix says."""
    draw = random.Random(seed)
    hosts = [f"10.1.{draw.randrange(4)}.{draw.randrange(8)}" for _ in range(8)]
    hosts += [f"fd01::{draw.randrange(4):x}:{draw.randrange(8)}" for _ in range(8)]
    classes, rows = random_classes(draw, hosts), random_verdicts(draw)
    wanted: set[PolicyRow] = {*classes, *rows}
    gone, new = [DeleteRow(row) for row in judge.rows], [PutRow(row) for row in wanted]
    assert judge.maps.apply([*gone, *new]) == []
    assert judge.maps.rows() == wanted

    for number in range(300):
        one, other = draw.choice(hosts), draw.choice(hosts)
        if one == other or (":" in one) != (":" in other):
            continue
        protocol, port = draw.choice([ICMP, TCP, UDP]), draw.randrange(8) << 12 | draw.randrange(2)
        ports = 50000 + number, port
        payload = {
            ICMP: echo(number, ipv6=":" in one), TCP: segment(ports), UDP: datagram(ports),
        }[protocol]  # fmt: skip
        raw = frame(one, other, ICMPV6 if protocol == ICMP and ":" in one else protocol, payload)
        pair = class_of(classes, one), class_of(classes, other)
        allowed = expected(rows, pair, protocol, 0 if protocol == ICMP else port)
        assert judge.passes(raw) == allowed, (one, other, pair, protocol, port)
