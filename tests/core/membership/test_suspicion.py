"""The suspicion timeout."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay.core.membership.suspicion import least_timeout_s, open_suspicion, timeout_s
from overlay.core.protocol.settings import ProtocolSettings
from overlay.model import NodeId

ACCUSERS = [NodeId(bytes([number]) * 16) for number in range(5)]


@pytest.mark.parametrize(
    ("members", "seconds"), [(1, 4.0), (2, 4.0), (10, 4.0), (100, 4.0), (1000, 6.0), (10_000, 8.0)]
)
def test_the_minimum_timeout_grows_with_the_cluster(members: int, seconds: float) -> None:
    """Up to a hundred members it is four probe intervals, then grows as log10."""
    assert least_timeout_s(members, ProtocolSettings()) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("confirmations", "seconds"),
    [(0, 30.0), (1, 30 - 28 * 0.5), (2, 30 - 28 * 0.7925), (3, 2.0), (4, 2.0)],
)
def test_confirmations_shorten_it(confirmations: int, seconds: float) -> None:
    """It falls with the logarithm of confirmations (Lifeguard IV.B, K = 3)."""
    assert timeout_s(2, 30, confirmations, 3) == pytest.approx(seconds, rel=1e-3)


@given(st.floats(0.1, 10), st.floats(1, 10), st.integers(0, 10), st.integers(0, 10))
def test_time_out_stays_between(least: float, factor: float, got: int, expected: int) -> None:
    """Whatever the confirmations, it is between minimum and maximum."""
    time_s = timeout_s(least, factor * least, got, expected)

    assert least <= time_s <= factor * least * (1 + 1e-9)


def test_one_accuser_counts_once() -> None:
    """The first accuser, and a repeated confirmation, add nothing."""
    suspicion = open_suspicion(ACCUSERS[0], 1000, ProtocolSettings(), now=10.0)
    assert suspicion.due == pytest.approx(10 + 36)

    counted = [suspicion.confirm(accuser) for accuser in (ACCUSERS[0], ACCUSERS[1], ACCUSERS[1])]
    assert counted == [False, True, False]
    assert not suspicion.is_confirmed


def test_enough_accusers() -> None:
    """Two confirmations give the minimum; a third is not counted."""
    suspicion = open_suspicion(ACCUSERS[0], 1000, ProtocolSettings(), now=10.0)

    assert [suspicion.confirm(accuser) for accuser in ACCUSERS[1:4]] == [True, True, False]
    assert suspicion.is_confirmed
    assert suspicion.due == pytest.approx(10 + 6)


def test_nobody_there_to_confirm() -> None:
    """With fewer other members than confirmations, none is expected."""
    suspicion = open_suspicion(ACCUSERS[0], 3, ProtocolSettings(), now=0.0)

    assert suspicion.due == pytest.approx(4.0)
    assert not suspicion.is_confirmed
