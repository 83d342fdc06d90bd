"""Faults that an agent meets from its start on, as part of `make chaos`."""

from __future__ import annotations

import signal
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from overlay.lab import host_process
from overlay.lab.driver import differences, endpoints, join_all, wait_until
from overlay.lab.fixtures import attach, lab_cluster
from overlay.lab.flow import require_no_loss
from tests.e2e.data_paths import PathWatch

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(900)]
HOURS_S = 7 * 3600
ENDPOINT_COUNT = 1000

Tell = Callable[[str, str, str], None]


def test_clock_stepped(tmp_path: Path, tell: Tell, path_watch: PathWatch) -> None:
    """A wall clock seven hours ahead, then behind, affects only the times of events."""
    library = tmp_path / "clockshift.so"
    source = Path(__file__).parent / "clockshift.c"
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    assert not host_process.running()
    with lab_cluster(2, populated=False) as made:
        shift = "/run/clock-shift"
        environment = {"LD_PRELOAD": str(library), "CLOCK_SHIFT_FILE": shift}
        join_all(made.drivers, **environment)
        made.populate()
        victim = made.host(2)
        told = []
        with made.both_ways() as verdicts:
            for seconds in (HOURS_S, -HOURS_S):
                victim.run("sh", "-c", f"echo {seconds} > {shift}")
                name = f"c{abs(seconds)}{'x' if seconds < 0 else ''}"
                victim.run("ip", "netns", "add", name)
                attach(victim, name)
                stamp = victim.get("/v1/events")["events"][-1]["time"]
                assert abs(stamp - time.time() - seconds) < 60, "the clock was not stepped"
                time.sleep(10.0)
                assert made.all_healthy()
                told.append(f"{seconds // 3600:+d} h")
            victim.end(signal.SIGKILL)
            victim.start(**environment)
        wait_until(made.all_healthy, "all well", 180.0)
        path_watch.look()
        measured = f"{' and '.join(told)}, then a kill -9: {require_no_loss(verdicts)}; all equal"
    promised = "nothing but the times of events follows it"
    tell("clock of one agent stepped by hours (preloaded clock_gettime)", promised, measured)


def test_without_the_nft_program(tell: Tell, path_watch: PathWatch) -> None:
    """Without the program nft, agents start, containers connect, and the filter is in place."""
    assert not host_process.running()
    with lab_cluster(2, populated=False) as made:
        for each in made.drivers:
            each.run("sh", "-c", "mount --bind /dev/null $(command -v nft)")
        join_all(made.drivers)
        made.populate()
        with made.both_ways() as verdicts:
            time.sleep(5.0)
        health = [item["text"] for item in made.host(1).get("/v1/status")["health"]]
        assert not any(differences(each) for each in made.drivers)
        path_watch.look()
        said = f"status says: {'; '.join(health)}" if health else "status has no complaint"
        measured = f"{require_no_loss(verdicts)}; {said}"
    tell("no `nft` program", "the same: rules are written by netlink", measured)


def test_a_thousand_endpoints_on_one_host(tell: Tell, path_watch: PathWatch) -> None:
    """Eight clients attach them and other hosts know them; a killed agent returns without loss."""
    assert not host_process.running()
    with lab_cluster(2) as made:
        crowded, other = made.drivers
        names = [f"m{number}" for number in range(ENDPOINT_COUNT)]
        made_all = f"for n in $(seq 0 {ENDPOINT_COUNT - 1}); do ip netns add m$n; done"
        host_process.run(crowded.host, "sh", "-c", made_all, timeout_s=300.0)
        started = time.monotonic()
        with ThreadPoolExecutor(8) as clients:
            addresses = list(clients.map(lambda name: attach(crowded, name), names))
        attached_s = time.monotonic() - started
        assert len(set(addresses)) == ENDPOINT_COUNT
        wait_until(made.all_healthy, "all well", 60.0)
        assert len(endpoints(other)) == ENDPOINT_COUNT + 2
        with made.both_ways() as verdicts:
            crowded.end(signal.SIGKILL)
            started = time.monotonic()
            crowded.start()
            start_s = time.monotonic() - started
            wait_until(made.all_healthy, "all well", 60.0)
        path_watch.look()
        measured = (
            f"attached in {attached_s:.0f} s by 8 clients; a killed agent answers after "
            f"{start_s:.1f} s: {require_no_loss(verdicts)}; all equal"
        )
    tell("1,000 endpoints on one host, agent killed", "as with one", measured)
