"""Bandwidth limits as labels, and their effect on the fast path."""

from __future__ import annotations

import pytest
from overlay.core.dataplane.planning.inputs import LocalPort, PlanInput
from overlay.core.dataplane.planning.planner import plan_sandbox
from overlay.core.dataplane.rate_limits import Rates, rate_row, rates_of, with_rates
from overlay.core.dataplane.state import HookRow, RateRow, SourceRow, TargetRow
from overlay.model import Endpoint, Ip, Network, NodeId, Subnet, Vni, mac_for, parse_ip

SUBNET = Subnet(parse_ip("10.32.0.0"), 16, parse_ip("10.32.0.1"))
NETWORK = Network(Vni(9), "blue", (SUBNET,), NodeId(bytes(16)))
IP = parse_ip("10.32.0.2")
MINE = (("overlayd.rate-in", "1000000"), ("team", "a"))


def test_labels_hold_the_limits() -> None:
    """Limits read back, other labels stay, None keeps a limit, 0 removes it."""
    assert rates_of(MINE) == Rates(1_000_000, 0)
    both = with_rates(MINE, (None, 64_000))
    assert rates_of(both) == Rates(1_000_000, 64_000)
    assert with_rates(both, (0, 0)) == (("team", "a"),)
    assert with_rates((), (None, None)) == ()


def test_a_row_has_a_rate_that_the_kernel_can_hold() -> None:
    """It counts bytes: another rate would be read back as one that somebody changed."""
    assert rate_row("ve1", Rates(64_001, 1_000_007)) == RateRow("ve1", 64_000, 1_000_000)


@pytest.mark.parametrize("text", ["", "-1", "1e6", "٣"])
def test_an_invalid_label_is_no_limit(text: str) -> None:
    """A label that no agent writes limits nothing, and breaks nothing."""
    assert rates_of((("overlayd.rate-in", text),)) == Rates()


@pytest.mark.parametrize(
    ("wanted", "target", "sends_fast"),
    [((0, 0), "ve1", True), ((10**6, 0), "br0", True), ((0, 10**6), "ve1", False)],
)
def test_a_limited_direction_takes_the_bridge(
    wanted: tuple[int, int], target: str, sends_fast: bool
) -> None:
    """A limited direction uses its queue; the other keeps the fast path."""
    mac = mac_for(NETWORK.vni, IP)
    found = Endpoint(b"1" * 8, NETWORK.vni, "web", mac, (IP,), (), with_rates((), wanted))
    port = LocalPort("ve1", 0, found.endpoint_id)
    given = PlanInput(NETWORK, 4789, Ip(b"\x0a\0\0\1"), 1450, (port,), (found,))
    rows = plan_sandbox(given, fast_path=True).rows
    assert TargetRow(mac, 0, target) in rows
    assert HookRow(0, "ve1") in rows  # it marks announcements, too
    assert any(isinstance(row, SourceRow) for row in rows) == sends_fast
    assert {row for row in rows if isinstance(row, RateRow)} == (
        {RateRow("ve1", *wanted)} if any(wanted) else set()
    )
