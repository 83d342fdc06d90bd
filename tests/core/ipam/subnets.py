"""Subnets, and what a node grants of them, for the tests of addresses."""

from __future__ import annotations

from overlay.core.ipam.grants import decide_grant
from overlay.core.ipam.ownership import Ownership
from overlay.core.protocol.messages import GrantRefusal, GrantRequest
from overlay.model import Ip, Network, NodeId, Subnet, Vni, parse_ip

A, B, C = (NodeId(bytes([65 + index]) * 16) for index in range(3))


def subnet(text: str, gateway: str) -> Subnet:
    """Return a subnet from its text."""
    base, length = text.split("/")
    return Subnet(parse_ip(base), int(length), parse_ip(gateway))


def network(*subnets: Subnet) -> Network:
    """Return A's network of these subnets."""
    return Network(Vni(7), "blue", subnets, A)


SMALL = subnet("10.0.0.0/24", "10.0.0.1")
WIDE = subnet("10.32.0.0/12", "10.32.0.1")
SIX = subnet("fd00::/64", "fd00::1")


def space_request(
    around: str, count: int = 256, *, exact: bool = False, request_id: bytes = b"request1"
) -> GrantRequest:
    """Return a request for space of network 7."""
    return GrantRequest(request_id, 7, parse_ip(around), count, exact)


def granted(known: Ownership, request: GrantRequest, requester: NodeId = B, **more: set[Ip]) -> str:
    """Return the grant that A writes as `first-last`, or its refusal."""
    used, resting = more.get("used", set()), more.get("resting", set())
    answer = decide_grant(known, A, requester, request, used=used, resting=resting)
    if isinstance(answer, GrantRefusal):
        return answer.reason
    assert answer.grantee == requester
    assert answer.request_id == request.request_id
    return f"{number_text(answer.first)}-{number_text(answer.last)}"


def number_text(ip: Ip) -> str:
    """Return an address without abbreviations."""
    return ".".join(str(byte) for byte in ip) if len(ip) == 4 else ip.hex(":", 2)
