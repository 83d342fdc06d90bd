"""The data-path probes of a simulated cluster."""

from __future__ import annotations

from overlay.sim.report.path_experiment import PathExperiment

SEEN_S = 10.0


def test_lost_vxlan_is_known_without_false_alarms() -> None:
    """At 10 % loss nothing is called lost; a host that drops VXLAN is, by every other host."""
    experiment = PathExperiment(8, 8)
    costs = [experiment.measure(loss, seconds=60.0) for loss in (0.0, 0.1)]

    assert [cost.false_alarms + cost.false_sizes for cost in costs] == [0, 0]
    assert 0 < costs[0].bit_per_s_of_pair < 1000
    assert costs[1].bit_per_s > costs[0].bit_per_s
    detection_s = experiment.detect()
    assert len(detection_s) == 7
    assert max(detection_s) <= SEEN_S


def test_a_partition_alarms_no_half() -> None:
    """Each path between the halves is named in time, and proven afterwards."""
    found = PathExperiment(8, 4, loss=0.01).partition(60.0)

    assert found.false_alarms == 0
    assert found.named_s <= SEEN_S + 1.0  # seconds are counted whole
    assert found.proven_s < 60.0
