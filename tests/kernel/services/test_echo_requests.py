"""Echo requests to hosts' kernels, and which answers count."""

from __future__ import annotations

import contextlib
import select
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import pytest
from overlay.kernel import netns
from overlay.kernel.services.echo_requests import EchoRequests
from overlay.model import Ip, NodeId, ip_text, parse_ip

if TYPE_CHECKING:
    from tests.kernel.services.conftest import Segment

pytestmark = pytest.mark.netns
VM2 = NodeId(b"2" * 16)
PATIENCE_S = 20.0
NEAR, FAR, NOBODY = 1, 2, 9


@pytest.fixture(params=["10.9.0.", "fd09::"])
def host(request: pytest.FixtureRequest) -> Callable[[int], Ip]:
    """Return the addresses of a family by number."""
    return lambda number: parse_ip(f"{request.param}{number}")


def opened(segment: Segment, source: Ip) -> contextlib.closing[EchoRequests]:
    """Open a socket in the client's namespace."""
    with netns.inside(segment.world.fd(segment.names[NEAR])):
        return contextlib.closing(EchoRequests(source))


def answers(requests: EchoRequests, seconds: float) -> list[tuple[NodeId, int]]:
    """Return what is answered, waiting for at most a time."""
    select.select([requests], [], [], seconds)
    return requests.received()


def test_a_kernel_answers_each_request(segment: Segment, host: Callable[[int], Ip]) -> None:
    """By its number; nobody else does, and a family that this host lacks is not asked."""
    segment.add(FAR)
    other_family = parse_ip("10.9.0.2" if len(host(FAR)) == 16 else "fd09::2")
    with opened(segment, host(NEAR)) as requests:
        requests.send(VM2, 1, host(NOBODY))
        requests.send(VM2, 2, other_family)
        for number in (70_001, 70_002):
            requests.send(VM2, number, host(FAR))
            assert answers(requests, PATIENCE_S) == [(VM2, number)]
        assert answers(requests, 0.0) == []


def test_forged_answers_do_not_count(segment: Segment, host: Callable[[int], Ip]) -> None:
    """A forger cannot guess the bytes of a request, and no answer counts twice."""
    segment.add(FAR)
    with opened(segment, host(NEAR)) as requests:
        requests.send(VM2, 1, host(FAR))
        assert answers(requests, PATIENCE_S) == [(VM2, 1)]
        requests.send(VM2, 2, host(NOBODY))
        family = socket.AF_INET if len(host(FAR)) == 4 else socket.AF_INET6
        protocol = socket.IPPROTO_ICMP if len(host(FAR)) == 4 else socket.IPPROTO_ICMPV6
        kind = 0 if len(host(FAR)) == 4 else 129
        with netns.inside(segment.world.fd(segment.names[FAR])):
            forger = socket.socket(family, socket.SOCK_RAW, protocol)
        with forger:
            head = bytes([kind, 0, 0, 0]) + requests.identifier.to_bytes(2, "big") + b"\0\2"
            for token in (bytes(16), b"", bytes(15)):
                forger.sendto(head + token, (ip_text(host(NEAR)), 0))
        assert answers(requests, 0.5) == []


def test_other_programs_replies_wake_nobody(segment: Segment, host: Callable[[int], Ip]) -> None:
    """Each would cost the agent a read; anybody can send very many."""
    segment.add(FAR)
    is_ipv4 = len(host(FAR)) == 4
    family = socket.AF_INET if is_ipv4 else socket.AF_INET6
    protocol = socket.IPPROTO_ICMP if is_ipv4 else socket.IPPROTO_ICMPV6
    kind = bytes([0 if is_ipv4 else 129, 0, 0, 0])
    with opened(segment, host(NEAR)) as requests:
        with netns.inside(segment.world.fd(segment.names[FAR])):
            forger = socket.socket(family, socket.SOCK_RAW, protocol)
        with forger:
            for other in (1, 2, 0xFFFF):
                identifier = (requests.identifier ^ other).to_bytes(2, "big")
                forger.sendto(kind + identifier + bytes(18), (ip_text(host(NEAR)), 0))
            own = requests.identifier.to_bytes(2, "big")
            forger.sendto(kind + own + bytes(18), (ip_text(host(NEAR)), 0))
        select.select([requests], [], [], PATIENCE_S)
        assert len(requests._socket.recv(256)) in (24, 44)
        with pytest.raises(BlockingIOError):  # the last one came, so the others have as well
            requests._socket.recv(256)
