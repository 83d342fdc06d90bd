from __future__ import annotations

import random

from overlay.sim.scenario import Scenario, drawn
from overlay.sim.world.faults import Crash, Newcomer, Partition, draw, story


def test_the_drawing_is_a_function_of_the_seed() -> None:
    """The same seed gives the same faults."""
    scenario = Scenario(crashes=10, partitions=4)

    assert draw(scenario, random.Random(5)) == draw(scenario, random.Random(5))


def test_every_fault_strikes_within_the_storm() -> None:
    """Faults are in order of time, none after the storm."""
    for seed in range(50):
        scenario = drawn(seed)
        times = [fault.at_s for fault in draw(scenario, random.Random(seed))]

        assert times == sorted(times)
        assert all(0 <= time <= scenario.duration for time in times)


def test_a_partition_leaves_hosts_on_both_sides() -> None:
    """A cut has at least one host on each side, also in a cluster of two."""
    for seed in range(50):
        scenario = Scenario(nodes=2 + seed % 5, partitions=3)
        for fault in draw(scenario, random.Random(seed)):
            if isinstance(fault, Partition):
                assert 0 < len(fault.side) < scenario.nodes


def test_no_disk_is_restored_near_a_cut() -> None:
    """A restored host must be able to reach the peers with its records."""
    for seed in range(100):
        faults = draw(Scenario(crashes=10, partitions=2), random.Random(seed))
        cuts = [fault for fault in faults if isinstance(fault, Partition)]
        for fault in faults:
            if isinstance(fault, Crash) and fault.how == "restored":
                back = fault.at_s + fault.down_s
                assert not any(cut.at_s < back < cut.at_s + cut.lasts_s for cut in cuts)


def test_newcomers_get_indexes_of_their_own() -> None:
    """A newcomer is a host that did not exist before."""
    scenario = Scenario(nodes=5, newcomers=3)
    faults = draw(scenario, random.Random(1))

    hosts = [fault.host for fault in faults if isinstance(fault, Newcomer)]
    assert sorted(hosts) == [5, 6, 7]


def test_the_story_has_one_line_for_each_fault() -> None:
    """Each line has a fault's time and its description."""
    text = story([Crash(3.5, 2, 1.25, "killed", 0), Partition(9.0, (0, 1), 4.0, one_way=True)])

    assert text == (
        "     3.50 s  h2: agent killed with -9; back after 1.2 s\n"
        "     9.00 s  nothing leaves h0 h1 for 4.0 s"
    )
