"""A service reads back as written, and what no agent writes is refused."""

from __future__ import annotations

import ipaddress
from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay import limits
from overlay.core.services.service import HealthCheck, Service, ServiceIngress, ServicePort
from overlay.errors import RemoteError
from overlay.model import Vni, parse_ip
from overlay.wire.codec.services import decode_service, encode_service

WEB = Service(
    name="web",
    vni=Vni(7),
    ips=(parse_ip("10.0.0.9"), parse_ip("fd00::9")),
    ports=(ServicePort(80, 8080, "tcp", "http"), ServicePort(53, 53, "udp")),
    selector=(("app", "web"),),
    backends=("c1", "c2"),
    weights=(("c1", 5),),
    drained=("c2",),
    affinity=True,
    local_first=True,
    check=HealthCheck("http", "/health", 2.0, 0.5, 3),
    ingress=(
        ServiceIngress(8080, 80, "tcp", "host", (ipaddress.ip_network("10.0.0.0/16"),)),
        ServiceIngress(53, 53, "udp"),
    ),
    labels=(("team", "shop"),),
)
PLAIN = Service("web", Vni(7), (parse_ip("10.0.0.9"),), (ServicePort(80, 80),))
NAMED = Service("web", Vni(7), (), (ServicePort(80, 80),), dns_rr=True)


@pytest.mark.parametrize("service", [WEB, PLAIN, NAMED])
def test_a_service_is_read_as_it_was_written(service: Service) -> None:
    """All hosts have what one wrote, and it fits its record."""
    body = encode_service(service)

    assert len(body) <= limits.DECLARED_BODY_SIZE_MAX
    assert decode_service("web", body) == service


def changed(position: int, value: Any) -> bytes:
    """Return the body of a service with another value in one place."""
    fields = msgpack.unpackb(encode_service(PLAIN), raw=False)
    fields[position] = value
    packed: bytes = msgpack.packb(fields)
    return packed


NO_PROGRAMS = (
    "", ".", "..", "../ls", "/bin/ls", "a/b", "-x", ".hidden", "A", "db ready", "a;b", "a\n", "a\0",
    "\u00e9", "x" * 65,
)  # fmt: skip
"""Names that are no file in the directory of checks."""


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, 0),
        (1, []),  # a virtual address, or names of the backends
        (1, [b"\x0a\0\0\1", b"\x0a\0\0\2"]),
        (2, []),
        (2, [[80, 80, 0, ""], [80, 81, 0, ""]]),
        (2, [[0, 80, 0, ""]]),
        (2, [[80, 80, 2, ""]]),
        (5, [["c1", limits.SERVICE_WEIGHT_MAX + 1]]),
        (7, 8),
        (8, [0, "", 1, 500, 3]),  # a check every millisecond
        (8, [0, "/", 2000, 500, 3]),
        (8, [1, "/ HTTP/1.1", 2000, 500, 3]),
        (8, [1, "/\u00e9", 2000, 500, 3]),  # an HTTP request has ASCII only
        *((8, [2, name, 2000, 500, 3]) for name in (*NO_PROGRAMS, 7)),
        (8, [0, "", 2000, 500, 0]),
        (9, [[80, 80, 0, 0, [[b"\x0a\0\0\1", 16]]]]),  # bits beyond the prefix
        (9, [[80, 80, 0, 2, []]]),
    ],
)
def test_what_no_agent_writes_is_refused(position: int, value: Any) -> None:
    """One malformed service does no harm."""
    with pytest.raises(RemoteError, match="malformed"):
        decode_service("web", changed(position, value))


def test_a_check_may_be_a_program_by_its_name() -> None:
    """Nothing else of it comes from the record."""
    for name in ("a", "db-ready", "pg_14.sh", "x" * 64):
        found = decode_service("web", changed(8, [2, name, 2000, 500, 3])).check
        assert found == HealthCheck("exec", name, 2.0, 0.5, 3)


@given(body=st.binary(max_size=limits.DECLARED_BODY_SIZE_MAX))
def test_any_bytes_are_a_service_or_refused(body: bytes) -> None:
    """No body of a hostile member raises anything else."""
    try:
        decode_service("web", body)
    except RemoteError:
        return
