"""Each fault once, for long enough, on real agents with traffic.

`make chaos` fills the table in docs/TESTING.md with the measurements.
"""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable

import pytest
from overlay.lab.driver import AgentDriver, ApiRefusedError, wait_until
from overlay.lab.fixtures import LabCluster, attach, cut_gossip, heal
from overlay.lab.flow import require_no_loss

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(900)]
STATE = "/var/lib/overlayd"
MINUTE_S = 60.0

Tell = Callable[[str, str, str], None]


def well_again(three: LabCluster) -> str:
    """Wait until all is well; say how long it took."""
    return f"all alive and equal after {wait_until(three.all_healthy, 'all well', 180.0):.1f} s"


def states(driver: AgentDriver) -> set[str]:
    """Return the states in which a host sees the others."""
    return {str(each["state"]) for each in driver.get("/v1/members")["members"]}


def test_forty_restarts(three: LabCluster, tell: Tell) -> None:
    """Forty agents are stopped and killed in turn without losing a packet."""
    rng = random.Random(40)
    with three.both_ways() as verdicts:
        for _ in range(40):
            driver = three.host(rng.randrange(2) + 1)
            driver.end(rng.choice((signal.SIGTERM, signal.SIGKILL)))
            driver.start()
    measured = f"{require_no_loss(verdicts)}; {well_again(three)}"
    tell("40 agents stopped or killed -9", "no packet lost, rows exact", measured)


def test_partition(three: LabCluster, tell: Tell) -> None:
    """During a minute without gossip, forwarding and writing continue; then both sides agree."""
    victim = three.host(2)
    with three.both_ways() as verdicts:
        cut_gossip(victim)
        time.sleep(MINUTE_S / 2)
        assert "dead" in states(victim)
        victim.run("ip", "netns", "add", "far")
        attach(victim, "far", wait="none")
        time.sleep(MINUTE_S / 2)
        heal(victim)
    measured = f"{require_no_loss(verdicts)}; attached meanwhile; {well_again(three)}"
    victim.post("/v1/detach", target="netns:far")
    told = "no packet lost; both sides go on; equal soon after"
    tell("partition of the control plane, 60 s", told, measured)


def test_one_way_partition(three: LabCluster, tell: Tell) -> None:
    """A host that only sends loses no packet, causes no flood, and recovers."""
    victim = three.host(2)
    before = len(three.host(1).get("/v1/events")["events"])
    with three.both_ways() as verdicts:
        cut_gossip(victim, "drop", "output")
        time.sleep(MINUTE_S / 2)
        heal(victim)
    healed = well_again(three)
    changes = len(three.host(1).get("/v1/events")["events"]) - before
    measured = f"{require_no_loss(verdicts)}; {changes} events on a peer; {healed}"
    tell("one-way partition, 30 s", "no packet lost; no endless flapping", measured)


def test_loss(three: LabCluster, tell: Tell) -> None:
    """With 30 % of gossip lost, attaches still reach everyone, and no node is declared dead."""
    worst_s, dead = 0.0, 0
    for each in three.drivers:
        cut_gossip(each, "numgen random mod 100 < 30 drop")
    try:
        with three.both_ways() as verdicts:
            for number in range(10):
                host = three.host(number % 3 + 1)
                host.run("ip", "netns", "add", f"lossy{number}")
                attach(host, f"lossy{number}")
                worst_s = max(worst_s, wait_until(three.all_equal, "an attach is everywhere", 60.0))
                dead += sum("dead" in states(each) for each in three.drivers)
                time.sleep(1.0)
    finally:
        for each in three.drivers:
            heal(each)
    for number in range(10):
        three.host(number % 3 + 1).post("/v1/detach", target=f"netns:lossy{number}")
    measured = (
        f"{require_no_loss(verdicts)}; 10 attaches, the slowest everywhere {worst_s:.2f} s "
        "after its "
        f"answer; {dead} times anyone seen dead; {well_again(three)}"
    )
    tell("30 % of gossip lost on every host", "slower, but whole", measured)


def test_frozen_agent(three: LabCluster, tell: Tell) -> None:
    """An agent stopped for a minute is declared dead and comes back by itself."""
    victim = three.host(2)
    with three.both_ways() as verdicts:
        victim.send_signal(signal.SIGSTOP)
        died_s = wait_until(lambda: "dead" in states(three.host(1)), "seen dead", 60.0)
        time.sleep(MINUTE_S - died_s)
        victim.send_signal(signal.SIGCONT)
        back = well_again(three)
    measured = f"{require_no_loss(verdicts)}; seen dead after {died_s:.0f} s; {back}"
    tell("SIGSTOP for a minute", "no packet lost; back by itself", measured)


def test_full_disk(three: LabCluster, tell: Tell) -> None:
    """A full disk refuses new changes by name, and costs no running traffic."""
    victim = three.host(2)
    victim.end(signal.SIGTERM)
    move = (
        f"mount -t tmpfs -o size=4m none /mnt && cp -a {STATE}/. /mnt && mount --move /mnt {STATE}"
    )
    victim.run("sh", "-c", move)
    victim.start()
    wait_until(three.all_healthy, "all well", 60.0)
    victim.run("ip", "netns", "add", "late")
    with three.both_ways() as verdicts:
        victim.run("sh", "-c", f"dd if=/dev/zero of={STATE}/ballast bs=4k 2>/dev/null; true")
        with pytest.raises(ApiRefusedError) as refusal:
            attach(victim, "late")
        victim.run("rm", f"{STATE}/ballast")
        attach(victim, "late")
    victim.post("/v1/detach", target="netns:late")
    measured = f"{require_no_loss(verdicts)}; '{refusal.value.answer['what']}'; {well_again(three)}"
    tell("disk full", "new refused with the reason, old keeps running", measured)
