"""The syntax of published ports, and conflicts between them."""

from __future__ import annotations

import pytest
from overlay.core.dataplane.published_port import (
    PortPair,
    PublishedPort,
    conflicting,
    matches,
    parse_pairs,
)
from overlay.errors import UsageError
from overlay.model import Ip, Vni, parse_ip

ANYWHERE = Ip(b"")
ALL_IPV4 = "0.0.0.0"  # noqa: S104  nothing is bound


def publication(host_ip: str = "", host_port: int = 8080, protocol: str = "tcp") -> PublishedPort:
    """Return a published port of `web`."""
    ip = parse_ip(host_ip) if host_ip else ANYWHERE
    return PublishedPort(protocol, ip, host_port, Vni(7), "web", 80)


@pytest.mark.parametrize(
    ("text", "pair"),
    [
        ("8080:80", PortPair("tcp", 8080, 80)),
        ("80", PortPair("tcp", 80, 80)),
        ("53:5353/udp", PortPair("udp", 53, 5353)),
        ("65535:1/tcp", PortPair("tcp", 65535, 1)),
    ],
)
def test_ports_are_parsed_as_people_write_them(text: str, pair: PortPair) -> None:
    """One number means both; TCP is the default; the text parses back."""
    assert parse_pairs(text) == [pair]
    assert parse_pairs(str(pair)) == [pair]


def test_ranges_are_as_many_pairs() -> None:
    """Both have one length; a single range means both."""
    assert parse_pairs("8000-8001:80-81/udp") == [
        PortPair("udp", 8000, 80),
        PortPair("udp", 8001, 81),
    ]
    assert parse_pairs("9000-9001") == [PortPair("tcp", n, n) for n in (9000, 9001)]
    assert parse_pairs("7-7:8") == [PortPair("tcp", 7, 8)]


@pytest.mark.parametrize(
    "text",
    [
        "", "web", "0:80", "80:0", "65536:1", "-1:80", "1:2:3", "80/sctp", "80/", "8080:", "٣:80",
        "1-", "2-1", "1-2:3", "1:3-4", "1-2-3", "65535-65536", "1-65535", "1" * 5000,
    ],
)  # fmt: skip
def test_an_invalid_port_is_refused(text: str) -> None:
    """The error shows a valid example."""
    with pytest.raises(UsageError, match="invalid port"):
        parse_pairs(text)


def test_published_ports_conflict_where_a_packet_fits_both() -> None:
    """Any address overlaps each one; other addresses, ports, protocols do not."""
    one = publication("192.168.56.11")

    assert conflicting(publication(), [one]) == one
    assert conflicting(one, [publication()]) == publication()
    assert conflicting(one, [one]) is None, "the same one does not conflict"
    assert conflicting(one, [publication("192.168.56.12"), publication("fd00::1")]) is None
    assert conflicting(one, [publication("192.168.56.11", 8081)]) is None
    assert conflicting(one, [publication("192.168.56.11", protocol="udp")]) is None


@pytest.mark.parametrize(("every", "one"), [(ALL_IPV4, "192.168.56.11"), ("::", "fd00::1")])
def test_an_unspecified_address_is_all_of_its_family(every: str, one: str) -> None:
    """A port there conflicts with each address of the family, and is bound to none."""
    assert publication(every).bound_ip == ANYWHERE
    assert publication(one).bound_ip == parse_ip(one)
    for other in (publication(), publication(one)):
        assert conflicting(publication(every), [other]) == other
        assert conflicting(other, [publication(every)]) == publication(every)
    (elsewhere,) = {ALL_IPV4, "::"} - {every}
    assert conflicting(publication(every), [publication(elsewhere)]) is None


def test_a_published_port_has_a_text() -> None:
    """As in a URL."""
    assert publication().host_binding == "*:8080"
    assert publication("192.168.56.11").host_binding == "192.168.56.11:8080"
    assert publication("fd00::1").host_binding == "[fd00::1]:8080"


@pytest.mark.parametrize(
    ("text", "so"),
    [("8080:80", True), ("8080", True), ("8080:81", False), ("80", False), ("8080:80/udp", False)],
)
def test_a_pair_selects_a_published_port(text: str, *, so: bool) -> None:
    """The host's port is enough to unpublish; a pair must match."""
    assert matches(parse_pairs(text)[0], publication()) == so
