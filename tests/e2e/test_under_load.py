"""A thousand packets a second between containers during all kinds of failures."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Iterator

import pytest
from overlay.errors import OverlayError
from overlay.lab.driver import AgentDriver, wait_until
from overlay.lab.fixtures import LabCluster, attach, cut_gossip, heal
from overlay.lab.flow import ContainerLocation, Flow, FlowResult, Receiver

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture
def rules(three: LabCluster) -> Iterator[list[AgentDriver]]:
    """Return a list of hosts whose lab table in nftables is deleted in the end."""
    cut: list[AgentDriver] = []
    yield cut
    for driver in cut:
        heal(driver)
    assert three.drivers


def restart_under_load(three: LabCluster, count: int, seed: int) -> list[FlowResult]:
    """Restart agents in turn, by SIGTERM and SIGKILL, while packets flow."""
    rng = random.Random(seed)
    with three.both_ways() as verdicts:
        for _ in range(count):
            driver = three.drivers[rng.randrange(2)]
            driver.end(rng.choice((signal.SIGTERM, signal.SIGKILL)))
            driver.start()
    return verdicts


def judge(verdicts: list[FlowResult], told: str) -> None:
    """Fail if any packet was lost or came twice."""
    shown = [(each.sent, each.lost, each.duplicates) for each in verdicts]
    print(f"{told}: (sent, lost, twice) {shown}")  # noqa: T201 - asked for
    assert all(each.sent > 0 for each in verdicts)
    assert [(lost, twice) for _, lost, twice in shown] == [(0, 0)] * len(shown)


def seed_now() -> int:
    """Return a seed, printed so that a failure can be repeated: OVERLAYD_SEED sets it."""
    seed = int(os.environ.get("OVERLAYD_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
    print(f"OVERLAYD_SEED={seed}")  # noqa: T201 - asked for
    return seed


def test_agents_are_restarted_under_load(three: LabCluster) -> None:
    """Six restarts and kills cost no packet, and the rows are exact afterwards."""
    judge(restart_under_load(three, 6, seed_now()), "6 restarts")
    wait_until(three.all_equal, "all hosts equal")


def test_a_flapping_peer_costs_nothing(three: LabCluster) -> None:
    """An agent that stops and continues, again and again, costs no packet and no row."""
    driver = three.drivers[1]
    with three.both_ways() as verdicts:
        for pause_s in (0.5, 3.0, 0.5, 3.0):
            driver.send_signal(signal.SIGSTOP)
            time.sleep(pause_s)
            driver.send_signal(signal.SIGCONT)
            time.sleep(pause_s / 2)
    judge(verdicts, "flapping")
    wait_until(three.all_healthy, "all alive and equal", 60.0)


def partition(three: LabCluster, seconds: float, cut: list[AgentDriver]) -> list[FlowResult]:
    """Cut one host's control plane off for a while, with traffic flowing."""
    driver = three.drivers[1]
    cut.append(driver)
    with three.both_ways() as verdicts:
        cut_gossip(driver)
        time.sleep(seconds)
        heal(driver)
    return verdicts


def test_a_short_partition_of_the_control_plane(
    three: LabCluster, rules: list[AgentDriver]
) -> None:
    """Ten seconds without gossip cost no packet."""
    judge(partition(three, 10.0, rules), "partition of 10 s")
    wait_until(three.all_healthy, "all alive and equal", 90.0)


def test_an_address_moves_to_another_host(three: LabCluster) -> None:
    """Packets to a reused address reach the new host at once, and never the old one."""
    old, new = three.drivers[1], three.drivers[2]
    old.run("ip", "netns", "add", "old")
    new.run("ip", "netns", "add", "new")
    address = attach(old, "old")
    flow = Flow(three.place(1), ContainerLocation(old, "old"), address)
    with flow:
        time.sleep(0.5)
        arrived = Receiver(ContainerLocation(new, "new"))
        left = time.monotonic()
        old.post("/v1/detach", target="netns:old")
        gone = time.monotonic()
        wait_until(lambda: _taken(new, address), "the address on the other host", 90.0)
        there = time.monotonic()
        time.sleep(1.0)
    got = arrived.end()

    assert flow.verdict is not None
    assert flow.verdict.last_at is not None
    assert flow.verdict.last_at < gone, "a packet came to the old place after the detach"
    assert got["first_at"] is not None
    print(  # noqa: T201 - asked for
        f"detach {gone - left:.3f} s, attach elsewhere {there - gone:.3f} s after it, first "
        f"packet there {got['first_at'] - there:+.3f} s after that"
    )
    assert got["first_at"] - there < 1.0
    for driver, name in ((old, "old"), (new, "new")):
        driver.post("/v1/detach", target=f"netns:{name}")
        driver.run("ip", "netns", "del", name)
    wait_until(three.all_equal, "all hosts equal")


def _taken(driver: AgentDriver, address: str) -> bool:
    try:
        return attach(driver, "new", ip=address) == address
    except OverlayError:
        return False
