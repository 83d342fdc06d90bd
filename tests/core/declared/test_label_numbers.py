"""Numbers that members write into labels: what reaches the kernel, and what counts for nothing.

`struct` would refuse a rate that is too large for its field, and a division one of less than a
byte: either ended the agent of each host with the network, by one record of any member.
"""

from __future__ import annotations

from typing import Final

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from overlay import limits
from overlay.core.dataplane.controls.port_controls import controls_of
from overlay.core.dataplane.controls.shared_rate import shared_rate_rows
from overlay.core.dataplane.rate_limits import rate_row, rates_of
from overlay.core.declared.label_numbers import RATE, number_in
from overlay.core.declared.network_options import (
    MTU,
    OPTION_LABELS,
    RATE_IN,
    SHARED_RATE,
    STORM,
    option_of,
)
from overlay.kernel.controls import class_tree
from overlay.kernel.nft.elements.limit_elements import put_limited
from overlay.kernel.nft.table import FAMILY_BRIDGE, Table
from overlay.kernel.sandbox import rate_limit
from overlay.model import Ip, Network, NodeId, Subnet, Vni

TEXTS: Final = st.one_of(
    st.text(max_size=limits.LABEL_SIZE_MAX),
    st.integers(0, 10**130).map(str),
    st.sampled_from(["1", "7", "8", str(2**35), str(2**64), "9" * limits.LABEL_SIZE_MAX, "٣", "²"]),
)


def network(option: str, text: str, base: bytes = bytes([10, 1, 0, 0])) -> Network:
    """Return a network with a label."""
    bits = 8 * len(base)
    subnet = Subnet(Ip(base), bits - 8, Ip(base[:-1] + b"\x01"))
    labels = ((OPTION_LABELS[option], text),)
    return Network(Vni(9), "blue", (subnet,), NodeId(bytes(16)), labels=labels)


@given(TEXTS)
@example("1")
@example(str(2**36))
def test_any_shared_rate_is_one_that_messages_can_hold(text: str) -> None:
    """A tree of classes is made of it."""
    for row in shared_rate_rows(network(SHARED_RATE, text), iter(["vx0"])):
        assert list(class_tree.put_classes(1, row.bits))


@given(TEXTS)
@example(str(2**36))
def test_any_rate_is_one_that_messages_can_hold(text: str) -> None:
    """A bucket is made of it."""
    row = rate_row("p1", rates_of(((OPTION_LABELS[RATE_IN], text),)))
    assert row is None or rate_limit._put_bucket(1, row.in_bits)


@given(TEXTS)
@example(str(2**65))
def test_any_limit_of_frames_is_one_that_messages_can_hold(text: str) -> None:
    """An element of a set is made of it."""
    storm = controls_of(((OPTION_LABELS[STORM], text),)).storm
    assert storm == 0 or list(put_limited(Table(FAMILY_BRIDGE, "t", (), ()), "s", {b"\0": storm}))


@pytest.mark.parametrize(
    ("text", "number"),
    [("64000", 64_000), ("32000000000", 32_000_000_000), ("63999", 0), ("32000000001", 0), ("", 0)],
)
def test_numbers_within_the_bounds_count(text: str, number: int) -> None:
    """They are those that the API accepts."""
    assert number_in({"rate": text}, "rate", RATE) == number


def test_an_mtu_is_one_that_every_host_can_set() -> None:
    """A smaller one would take IPv6, or all packets, from each host's containers."""
    ipv6 = bytes.fromhex("fd000000000000000000000000000000")

    assert option_of(network(MTU, "576"), MTU) == 576
    assert option_of(network(MTU, "1"), MTU) == 0
    assert option_of(network(MTU, "1279", ipv6), MTU) == 0
    assert option_of(network(MTU, "1280", ipv6), MTU) == 1280
