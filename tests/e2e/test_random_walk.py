"""Random verbs, kills and partitions on three hosts, compared with a small model.

SEED= and STEPS= in the environment select other and longer walks; a failure prints all steps.
"""

from __future__ import annotations

import os
import random

import pytest
from overlay.lab import host_process, lab
from overlay.lab.driver import connect, end_all, join_all, wait_until
from tests.e2e import settled
from tests.e2e.data_paths import PathWatch
from tests.e2e.walk import Walk, names_on
from tests.e2e.walk_hosts import SETTLE_S

SEED = int(os.environ.get("SEED") or 20261121)
STEPS = int(os.environ.get("STEPS") or 60)
STEPS_BETWEEN = 6
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120 + 5 * STEPS)]


def test_a_walk(path_watch: PathWatch) -> None:
    """Every few steps all hosts agree with the model.

    At the end everything can be removed, and a reset leaves each host as it was found.
    """
    print(f"SEED={SEED} STEPS={STEPS}")  # noqa: T201 - pytest shows it with a failure
    assert not host_process.running(), "a lab is up on this machine: overlayd lab down"
    drivers = connect(lab.make(3))
    try:
        before = [settled.snapshot(driver) for driver in drivers]
        join_all(drivers)
        walk = Walk(drivers, lab.find(lab.SWITCH), random.Random(SEED), print)
        for number in (2, 3):
            walk.promote(1, number)
        for step in range(1, STEPS + 1):
            walk.step()
            if step % STEPS_BETWEEN == 0:
                settled.check(walk)
                path_watch.look()
        empty(walk)
        for driver, found in zip(drivers, before, strict=True):
            driver.run("overlayd", "reset", "--yes")
            driver.wait()
            after = settled.snapshot(driver)
            other = sorted(set(after) ^ set(found))
            assert not other, "left behind, or gone:\n" + "\n".join(other)
    except BaseException:
        for driver in drivers:
            print(f"--- {driver.host.name}\n{driver.log_tail()}")  # noqa: T201 - as above
        raise
    finally:
        end_all(drivers)


def empty(walk: Walk) -> None:
    """Remove everything, from any host."""
    settled.check(walk)
    for name in list(walk.containers):
        walk.drop(name)
    settled.check(walk)
    for name in list(walk.networks):
        walk.remove_network(walk.rng.randint(1, 3), name)
    wait_until(lambda: not any(map(names_on, walk.hosts.drivers)), "no networks", SETTLE_S)
    settled.check(walk)
