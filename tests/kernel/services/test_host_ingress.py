"""A host's port that leads to a service: who answers, whose address is seen, who may ask."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from overlay.core.dataplane.host_rules import ExposedLink, HostState, IngressForward
from overlay.core.services.values import Backend
from overlay.kernel import netns
from overlay.kernel.nft.host import host_ingress
from overlay.kernel.nft.host.host_table import HostTable
from overlay.model import Ip, ip_text, parse_ip
from tests.kernel.services.conftest import NODE, OTHER_NODE, TARGET_PORT, Backends, address

if TYPE_CHECKING:
    from tests.kernel.conftest import World
    from tests.kernel.services.conftest import Segment

pytestmark = pytest.mark.netns
PORT = 8000
LINK = ExposedLink("eth0", ((parse_ip("10.9.0.0"), 24), (parse_ip("fd09::"), 64)))
OUTSIDE = {4: ("172.31.0.1", "172.31.0.2", 24), 16: ("fd31::1", "fd31::2", 64)}
SIX = range(2, 8)


class Place:
    """Container 1 of a segment as the host, and a client outside."""

    def __init__(self, world: World, segment: Segment) -> None:
        self.segment, self.host = segment, segment.names[1]
        self.client = world.namespace("world")
        world.run(self.host, "ip", "link", "add", "w0", "type", "veth", "peer", "eth0", "netns",
                  self.client)  # fmt: skip
        for name, end in ((self.host, "w0"), (self.client, "eth0")):
            world.run(name, "ip", "link", "set", end, "up")
        for ours, theirs, length in OUTSIDE.values():
            world.run(self.host, "ip", "address", "add", f"{ours}/{length}", "dev", "w0", "nodad")
            world.run(
                self.client, "ip", "address", "add", f"{theirs}/{length}", "dev", "eth0", "nodad"
            )
        for sysctl in ("net.ipv4.ip_forward", "net.ipv6.conf.all.forwarding"):
            world.run(self.host, "sysctl", "-qw", f"{sysctl}=1")
        with netns.inside(world.fd(self.host)):
            self.table = HostTable(NODE)

    def add(self, number: int, *, returns_by_host: bool) -> None:
        """Add a backend, with the host as its router or without."""
        self.segment.add(number)
        for gateway in ("10.9.0.1", "fd09::1") if returns_by_host else ():
            name = self.segment.names[number]
            self.segment.world.run(name, "ip", "route", "add", "default", "via", gateway)

    def socket(self, size: int, port: int = 0, *, inside: bool = False) -> socket.socket:
        """Return a TCP socket outside, or of the host."""
        name = self.host if inside else self.client
        with netns.inside(self.segment.world.fd(name)):
            made = socket.socket(socket.AF_INET if size == 4 else socket.AF_INET6)
        made.settimeout(20)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if port:
            made.bind((OUTSIDE[size][1], port))
        return made


@pytest.fixture
def place(world: World, segment: Segment) -> Iterator[Place]:
    """Return a host."""
    made = Place(world, segment)
    yield made
    made.table.close()


def forward(numbers: range, size: int) -> IngressForward:
    """Return the port that leads to some backends."""
    backends = tuple(Backend(address(each, size), TARGET_PORT, OTHER_NODE) for each in numbers)
    return IngressForward("tcp", PORT, backends)


def ask(place: Place, backends: Backends, size: int, port: int = 0, **of: bool) -> bytes:
    """Ask the host's port once."""
    with place.socket(size, port, **of) as client:
        client.connect((OUTSIDE[size][0], PORT))
        return backends.answer(client)


def test_a_port_leads_to_backends_of_both_families(place: Place) -> None:
    """Each family has a choice of its own, in an order that no backend's end changes."""
    both = [forward(SIX, size) for size in OUTSIDE]
    state = HostState(frozenset({LINK}), ingress=frozenset(both))
    place.table.write(state)
    assert place.table.holds(state)
    assert host_ingress.in_order(both[::-1]) == both
    fewer = [each._replace(backends=each.backends[1:]) for each in both]
    assert host_ingress.in_order(fewer[::-1]) == fewer


@pytest.mark.parametrize("size", [4, 16])
def test_a_local_backend_sees_the_client(place: Place, size: int) -> None:
    """And all of them have their part; the table reads back as it was written."""
    for number in SIX:
        place.add(number, returns_by_host=True)
    state = HostState(frozenset({LINK}), ingress=frozenset({forward(SIX, size)}))
    place.table.write(state)
    assert place.table.holds(state)
    backends = Backends(place.segment, SIX, socket.SOCK_STREAM, size)
    for port in range(20_000, 20_300):
        ask(place, backends, size, port)
    backends.close()

    assert backends.asked.keys() == set(SIX)
    assert {ip for ip, _ in backends.clients} == {OUTSIDE[size][1]}


@pytest.mark.parametrize("size", [4, 16])
def test_a_backend_that_rests_moves_no_client_of_others(size: int) -> None:
    """Whatever its weight, the port keeps its map, and only the slots that it had change."""
    before = forward(SIX, size)
    first, *others = (replace(each, weight=10) for each in before.backends)
    before = before._replace(backends=(first, *others))
    after = before._replace(backends=(replace(first, is_resting=True), *others))
    held, now = (host_ingress.elements([each]) for each in (before, after))
    lost = [element for name in held for element in held[name] - now[name]]
    rules = [[*host_ingress.destinations([each], from_host=False)] for each in (before, after)]

    assert rules[0] == rules[1]
    assert lost
    assert all(bytes(first.ip) in each for each in lost)


@pytest.mark.parametrize("size", [4, 16])
def test_a_remote_backend_sees_the_host(place: Place, size: int) -> None:
    """It would answer by another way; so do the host's own programs reach the port."""
    place.add(2, returns_by_host=False)
    one = forward(range(2, 3), size)._replace(borrowed=frozenset({address(2, size)}))
    place.table.write(HostState(frozenset({LINK}), ingress=frozenset({one})))
    backends = Backends(place.segment, range(2, 3), socket.SOCK_STREAM, size)

    assert ask(place, backends, size) == b"2"
    assert ask(place, backends, size, inside=True) == b"2"
    backends.close()
    assert {ip for ip, _ in backends.clients} == {ip_text(address(1, size))}


@pytest.mark.parametrize(("ranges", "may_ask"), [(["172.31.0.0"], True), (["172.30.0.0"], False)])
def test_only_some_clients_may_ask(place: Place, ranges: list[str], may_ask: bool) -> None:
    """Others are refused as on a closed port; the host itself never is."""
    place.add(2, returns_by_host=True)
    sources: tuple[tuple[Ip, int], ...] = tuple((parse_ip(each), 24) for each in ranges)
    one = forward(range(2, 3), 4)._replace(sources=sources)
    place.table.write(HostState(frozenset({LINK}), ingress=frozenset({one})))
    backends = Backends(place.segment, range(2, 3), socket.SOCK_STREAM, 4)

    assert ask(place, backends, 4, inside=True) == b"2"
    if may_ask:
        assert ask(place, backends, 4) == b"2"
    else:
        with pytest.raises(ConnectionRefusedError):
            ask(place, backends, 4)
    backends.close()
