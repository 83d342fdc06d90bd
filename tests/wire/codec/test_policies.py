"""A policy reads back as written, and what no agent writes is refused."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay import limits
from overlay.core.policy.policy import Policy, PortRange, parse_peer
from overlay.errors import RemoteError
from overlay.model import Vni
from overlay.wire.codec.policies import decode_policy, encode_policy

FULL = Policy(
    name="db",
    vni=Vni(7),
    action="allow",
    sources=tuple(map(parse_peer, ("label=app=web", "label=admin", "name=c1", "host", "world"))),
    destinations=tuple(map(parse_peer, ("cidr:10.0.0.0/8", "cidr:fd00::/8", "network:red"))),
    ports=(PortRange("tcp", 5432, 5432), PortRange("udp", 8000, 8100), PortRange("icmp")),
    log=True,
    labels=(("team", "shop"),),
)
PLAIN = Policy("nothing", Vni(7), "deny")


@pytest.mark.parametrize("policy", [FULL, PLAIN])
def test_a_policy_is_read_as_it_was_written(policy: Policy) -> None:
    """All hosts have what one wrote, and it fits its record."""
    body = encode_policy(policy)

    assert len(body) <= limits.DECLARED_BODY_SIZE_MAX
    assert decode_policy(policy.name, body) == policy


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, 0),
        (1, 2),  # neither allow nor deny
        (2, [[]]),
        (2, [[6]]),
        (2, [[0]]),  # a label without a key
        (2, [[0, ""]]),
        (2, [[0, "a=b"]]),
        (2, [[0, "a", "b", "c"]]),
        (2, [[1, ""]]),
        (2, [[2, "x"]]),
        (2, [[4, b"\x0a\0\0\1", 8]]),  # bits beyond the prefix
        (2, [[4, b"\x0a\0\0\0", 33]]),
        (2, [[3]] * (limits.POLICY_PEERS_MAX + 1)),
        (3, [[5, "not a name"]]),
        (4, [[0, 90, 80]]),
        (4, [[0, True, 80]]),
        (4, [[3, 0, 80]]),
        (4, [[2, 8, 8]]),  # ICMP has no ports
        (5, 2),
        (6, [["k", 1]]),
    ],
)
def test_what_no_agent_writes_is_refused(position: int, value: Any) -> None:
    """One malformed policy does no harm, and does not come to mean everything."""
    fields = msgpack.unpackb(encode_policy(PLAIN), raw=False)
    fields[position] = value

    with pytest.raises(RemoteError, match="malformed"):
        decode_policy("nothing", msgpack.packb(fields))


@given(body=st.binary(max_size=limits.DECLARED_BODY_SIZE_MAX))
def test_any_bytes_are_a_policy_or_refused(body: bytes) -> None:
    """No body of a hostile member raises anything else."""
    try:
        decode_policy("db", body)
    except RemoteError:
        return
