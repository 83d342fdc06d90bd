"""A router reads back as written, and what no agent writes is refused."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay import limits
from overlay.core.router.router import Router
from overlay.errors import RemoteError
from overlay.model import Vni
from overlay.wire.codec.routers import decode_router, encode_router

MOST = tuple(Vni(limits.VNI_MAX - number) for number in reversed(range(limits.ROUTER_NETWORKS_MAX)))


@pytest.mark.parametrize(
    "router",
    [Router("r1", (Vni(7), Vni(9)), True, (("team", "shop"),)), Router("most", MOST)],
)
def test_a_router_is_read_as_it_was_written(router: Router) -> None:
    """All hosts have what one wrote, and it fits its record."""
    body = encode_router(router)

    assert len(body) <= limits.DECLARED_BODY_SIZE_MAX
    assert decode_router(router.name, body) == router


@pytest.mark.parametrize(
    ("position", "value"),
    [
        (0, [9, 7]),
        (0, [7, 7]),
        (0, [0, 7]),
        (0, [limits.VNI_MAX + 1]),
        (0, list(range(1, limits.ROUTER_NETWORKS_MAX + 2))),
        (1, 2),
        (1, True),
        (2, [["a"]]),
    ],
)
def test_what_no_agent_writes_is_refused(position: int, value: Any) -> None:
    """Such a router counts for nothing."""
    fields: list[Any] = [[7, 9], 0, []]
    fields[position] = value

    with pytest.raises(RemoteError):
        decode_router("r1", msgpack.packb(fields))


@given(st.binary(max_size=64))
def test_any_bytes_are_a_router_or_refused(body: bytes) -> None:
    """Never another exception."""
    try:
        found = decode_router("r1", body)
    except RemoteError:
        return
    assert decode_router("r1", encode_router(found)) == found
