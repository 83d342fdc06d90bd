"""Declared DNS records, published ports and exposures, and their bodies."""

from __future__ import annotations

from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay.core.declared.host_objects import (
    DeclaredExposure,
    DeclaredPlug,
    DeclaredPort,
    DeclaredRecord,
    existing,
)
from overlay.core.declared.objects import DeclaredObjects, PlacedObject
from overlay.core.protocol.records import DeclaredObject
from overlay.errors import ConflictError
from overlay.model import Ip, NodeId, parse_ip, valid_name

names = st.sampled_from(["web", "Blue", "a.b", "vm1"])
addresses = st.sampled_from([parse_ip(text) for text in ("10.0.0.1", "fd00::7", "192.0.2.9")])
ports = st.integers(1, 65_535)
owners = st.sampled_from(["", "shop"])
objects = (
    st.builds(DeclaredRecord, names, names, st.lists(addresses, max_size=3).map(tuple), owners)
    | st.builds(
        DeclaredPort,
        names, st.sampled_from(["tcp", "udp"]), addresses | st.just(Ip(b"")), ports, names, names,
        ports, owners,
    )
    | st.builds(DeclaredExposure, names, names, st.booleans(), owners)
    | st.builds(DeclaredPlug, names, names, st.sampled_from(["eth2", "bond0.7"]), names, owners)
)  # fmt: skip


class Objects(DeclaredObjects):
    """Declared objects that a test gives."""

    def __init__(self, kind: int, name: str, body: bytes) -> None:
        self._given = PlacedObject(NodeId(bytes(16)), DeclaredObject(kind, name, 1, body))

    def existing(self, kind: int) -> list[PlacedObject]:
        """Return the object given."""
        return [self._given] if kind == self._given.value.kind else []


@given(objects)
def test_objects_read_back(
    item: DeclaredRecord | DeclaredPort | DeclaredExposure | DeclaredPlug,
) -> None:
    """Every value survives, under a name that records accept."""
    found = Objects(item.kind, item.object_name, item.body())

    kind = cast("type[DeclaredRecord]", type(item))
    assert list(existing(found, kind)) == [item]
    assert valid_name(item.object_name)
    assert not list(existing(Objects(item.kind, "other", item.body()), kind))


@given(
    st.sampled_from([DeclaredRecord, DeclaredPort, DeclaredExposure, DeclaredPlug]),
    st.binary(max_size=30)
    | st.recursive(st.none() | st.integers() | st.text(max_size=3), st.lists).map(
        lambda value: repr(value).replace("'", '"').replace("None", "null").encode()
    ),
)
def test_garbage_is_skipped(kind: type[DeclaredRecord], body: bytes) -> None:
    """A hostile member's body is no object, and stops nothing."""
    assert not list(existing(Objects(kind.kind, "x", body), kind))


def test_names_differ_by_more_than_case() -> None:
    """As everywhere: `DB` and `db` are one record, and one place on a host has one port."""
    one, two = DeclaredRecord("blue", "db", ()), DeclaredRecord("Blue", "DB", ())
    first = DeclaredPort("vm1", "tcp", Ip(b""), 80, "blue", "web", 80)
    second = DeclaredPort("vm1", "tcp", Ip(b""), 80, "red", "api", 81)

    assert one.object_name == two.object_name
    assert first.object_name == second.object_name
    assert first.place == "*:80/tcp"


def test_an_object_that_no_record_holds_is_refused() -> None:
    """Before anything is written."""
    ips = tuple(parse_ip(f"2001:db8:1111:2222:3333:4444:5555:{n:x}") for n in range(4096, 4116))

    with pytest.raises(ConflictError, match=r"DNS record blue/db is too large"):
        DeclaredRecord("blue", "db", ips).body()
