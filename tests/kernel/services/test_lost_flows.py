"""Flows to backends that are gone end, and a living backend answers the next ones."""

from __future__ import annotations

import errno
import socket
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from overlay.core.services.values import VirtualPort
from overlay.kernel import netns
from overlay.kernel.services import lost_flows, waiting_sockets
from overlay.kernel.services.lost_flows import Losses
from overlay.kernel.services.table_plan import TablePlanner
from overlay.kernel.services.waiting_sockets import Waiting
from overlay.model import Ip, ip_text, parse_ip
from tests.kernel.services.conftest import (
    NODE,
    PORT,
    VIRTUAL,
    Backends,
    address,
    virtual_port,
)

if TYPE_CHECKING:
    from tests.kernel.services.conftest import Segment

TCP, UDP = socket.SOCK_STREAM, socket.SOCK_DGRAM


def lost(before: list[VirtualPort], after: list[VirtualPort]) -> Losses:
    """Return what a change of ports loses."""
    planner = TablePlanner(NODE)
    return lost_flows.between(before, after, planner.plan(before), planner.plan(after))


def test_only_what_has_lost_a_backend_is_lost() -> None:
    """Pings are, once another backend answers them; what comes or stays loses nothing."""
    other = replace(virtual_port((2, 3)), ip=parse_ip("10.9.0.101"))
    both, more = virtual_port((3, 4)), virtual_port((3, 4, 5))
    left = {n: frozenset({address(n, 4)}) for n in (3, 4)}

    assert not lost([both, other], [both, other])
    assert not lost([both, other], [more, other])
    assert not lost([other], [both, other])
    assert lost([both, other], [virtual_port((3,)), other]) == Losses({both: left[3]})
    assert lost([both], [virtual_port((4,))]) == Losses({both: left[4]}, {both.ip: left[4]})
    assert lost([both], [virtual_port((2, 3, 4))]).pinged == {both.ip: {address(2, 4)}}
    assert lost([both], []) == Losses({both: frozenset()}, {both.ip: frozenset()})


def test_the_newest_word_counts() -> None:
    """A backend that came back since answers again."""
    both, one, none = virtual_port((2, 3)), frozenset({address(2, 4)}), frozenset[Ip]()
    merged = Losses({both: frozenset()}, {both.ip: frozenset()}) | Losses({both: one})

    assert merged == Losses({both: one}, {both.ip: none})


@pytest.mark.netns
@pytest.mark.parametrize("size", [4, 16])
def test_udp_flows_leave_a_backend_that_is_gone(segment: Segment, size: int) -> None:
    """And those to the one that stays, stay; as do TCP connections."""
    for number in (2, 3):
        segment.add(number)
    backends = Backends(segment, range(2, 4), UDP, size)
    both, one = (virtual_port(numbers, size, "udp") for numbers in ((2, 3), (3,)))
    segment.put(both)
    clients = [segment.socket(1, UDP, address(1, size), 20_000 + at) for at in range(16)]

    def answers() -> list[bytes]:
        for client in clients:
            client.connect((ip_text(VIRTUAL[size]), PORT))
            client.send(b"?")
        return [backends.answer(client) for client in clients]

    before = answers()
    assert set(before) == {b"2", b"3"}
    segment.put(one)
    assert answers() == before  # the kernel remembers each flow
    losses = Losses({one: frozenset({address(3, size)})})
    gone = lost_flows.end(segment.path, segment.identity, losses)
    assert gone == before.count(b"2")
    assert answers() == [b"3"] * 16
    backends.close()


@pytest.mark.netns
@pytest.mark.parametrize("size", [4, 16])
def test_pings_go_on_at_another_backend(segment: Segment, size: int) -> None:
    """Once another answers them, and not before."""
    for number in (2, 3):
        segment.add(number)
    all_three, two, one = (virtual_port(each, size) for each in ((2, 3, 4), (2, 3), (3,)))
    segment.put(all_three)
    assert segment.world.pings(segment.names[1], ip_text(VIRTUAL[size])) == 1

    place = segment.path, segment.identity
    assert lost_flows.end(*place, lost([all_three], [two])) == 0
    assert lost_flows.end(*place, lost([two], [one])) == 1


@pytest.mark.netns
@pytest.mark.parametrize("is_known", [True, False])
@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6])
def test_a_syn_that_nobody_answers_finds_another(
    segment: Segment, monkeypatch: pytest.MonkeyPatch, family: int, *, is_known: bool
) -> None:
    """A connection that was begun before its backend was known to be gone is not lost.

    Also if its socket is of IPv6, or the kernel does not tell which sockets wait.
    """

    def refused(*_: object) -> list[Waiting]:
        raise OSError(errno.EPROTONOSUPPORT, "not supported")

    if not is_known:
        monkeypatch.setattr(waiting_sockets, "sockets", refused)
    segment.add(3)
    backends = Backends(segment, range(3, 4), TCP, 4)
    lost = ("lladdr", "02:00:00:00:00:02", "dev", "eth0", "nud", "permanent")
    segment.world.run(segment.names[1], "ip", "neigh", "add", ip_text(address(2, 4)), *lost)
    segment.put(virtual_port((2,)))  # there is no container 2 any more
    with netns.inside(segment.world.fd(segment.names[1])):
        client = socket.socket(family, TCP)
    client.setblocking(False)
    mapped = "" if family == socket.AF_INET else "::ffff:"
    client.connect_ex((mapped + ip_text(VIRTUAL[4]), PORT))
    left = virtual_port((3,))
    segment.put(left)
    gone = Losses({left: frozenset({address(3, 4)})})
    assert lost_flows.end(segment.path, segment.identity, gone) == 1
    assert lost_flows.end(segment.path, segment.identity, gone) == 0
    client.setblocking(True)
    client.settimeout(20)
    segment.world.wait_until(lambda: backends.serve().total() > 0, "the next SYN")
    backends.close()

    assert client.recv(64) == b"3"
    client.close()
