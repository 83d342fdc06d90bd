"""The data-path probes of a simulated cluster."""

from __future__ import annotations

from overlay import limits
from overlay.sim.environment.network import Weather
from overlay.sim.report.path_experiment import probe_all

SEEN_S = limits.PATH_PROBE_INTERVAL_S + (limits.PATH_MISSES_LOST + 1) * limits.PATH_RETRY_S


def test_lost_vxlan_is_known_without_false_alarms() -> None:
    """At 1 % loss nothing is called lost; a host that drops VXLAN is, by every other host."""
    cost = probe_all(8, Weather(loss=0.01, latency_s=0.005), seconds=60.0)

    assert cost.false_alarms == 0
    assert cost.bit_per_s > 0
    assert len(cost.detection_s) == 7
    assert max(cost.detection_s) <= SEEN_S
