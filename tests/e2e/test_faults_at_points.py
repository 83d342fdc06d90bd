"""Faults other than a kill at a point: a full disk, a client that dies, a power cut, a stop.

An agent is stopped at a point, the host is changed, and the agent goes on; or it is killed there,
and starts again on a host that has lost all that its kernel and /run held. Afterwards all hosts
must be consistent, as in `test_crash_points`. In `make chaos` only.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from overlay.errors import OverlayError, TimedOutError
from overlay.lab.driver import AgentDriver, wait_until
from tests.e2e.crash_points import (
    FLAT,
    PLAN,
    Pair,
    Verb,
    crash,
    crash_pair,
    of_each_kind,
    passed,
    plan,
    points,
    require_all_well,
    require_most,
    require_sound,
)
from tests.e2e.crash_verbs import VERBS

pytestmark = [pytest.mark.e2e, pytest.mark.chaos, pytest.mark.timeout(1200)]
STATE = "/var/lib/overlayd"
# The write-ahead log of an agent that is killed again and again reaches 4 MB (SQLite's default).
SMALL = f"mount -t tmpfs -o size=16m none /mnt && cp -a {STATE}/. /mnt && mount --move /mnt {STATE}"
# Containers end as well; the host's programs give them namespaces again.
POWER_CUT = f"""
for each in $(ls /run/netns); do ip netns del $each; done
ip -br link | grep -o '^ov[^@ ]*' | xargs -r -n1 ip link del
nft flush ruleset
rm -rf /run/netns /run/overlayd /etc/netns/lost {PLAN}
ip netns add c2
"""
BY_NAME = {verb.name: verb for verb in VERBS}
CHANGES = [
    BY_NAME[name]
    for name in (
        "attach", "detach", "limit", "network create", "network rm", "container add",
        "container rm", "grant, asking", "leave", "join", "expose", "publish", "unpublish",
    )
]  # fmt: skip


COPY = "the previous copy of the state file is old"  # as it may be for ten minutes
COMMITS = ("state.commit:", "state.committed:")
DEAD_S = 20.0  # in which a silent member is declared dead on a loaded machine


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Two joined hosts with network blue, and the second one's state on a small disk."""
    with crash_pair() as made:
        made.two.end(signal.SIGTERM)
        made.two.run("sh", "-c", SMALL)
        made.two.start(**FLAT)
        made.tolerated = COPY
        yield made


class Stopped:
    """A verb whose victim has stopped at a point; it goes on after the block."""

    def __init__(self, pair: Pair, verb: Verb, point: str) -> None:
        self._victim = verb.victim(pair)
        verb.prepare(pair)
        plan(self._victim, f"stop {point}")
        context = multiprocessing.get_context("fork")
        self._refusals: multiprocessing.SimpleQueue[str] = context.SimpleQueue()
        self.client = context.Process(target=self._ask, args=(pair, verb))

    def _ask(self, pair: Pair, verb: Verb) -> None:
        try:
            verb.act(pair)
        except (OSError, OverlayError) as error:
            self._refusals.put(str(error))

    def __enter__(self) -> Self:
        self.client.start()
        wait_until(lambda: self._is_stopped() or not self.client.is_alive(), "it stops or is done")
        return self

    def _is_stopped(self) -> bool:
        with contextlib.suppress(OSError):
            stat = Path(f"/proc/{self._victim.pid()}/stat").read_text(encoding="ascii")
            return stat.rpartition(")")[2].split()[0] == "T"  # proc(5)
        return False

    def __exit__(self, *_: object) -> None:
        self._victim.send_signal(signal.SIGCONT)

    def end(self) -> bool:
        """Wait until the client has ended; return whether the agent had stopped at the point."""
        self.client.join()
        return passed(self._victim) != []

    def refusal(self) -> str:
        """Return why the verb failed; empty if it did not."""
        return "" if self._refusals.empty() else self._refusals.get()


@pytest.mark.parametrize("verb", CHANGES, ids=lambda verb: verb.name)
def test_the_disk_is_full_from_each_commit_on(pair: Pair, verb: Verb) -> None:
    """The verb is refused or done, and so it is seen everywhere once there is room again."""
    met, refused = {}, 0
    for number in range(points(pair, verb).count("state.commit")):
        point = f"state.commit:{number + 1}"
        with Stopped(pair, verb, point) as stopped:
            fill(pair.two)
        met[point] = stopped.end()
        pair.two.run("rm", "-f", f"{STATE}/ballast")
        require_sound(pair, f"after a full disk at {point} of {verb.name}")
        pair.two.end()  # what it remembers is what it has written
        pair.restart(pair.two)
        refusal = stopped.refusal()
        refused += refusal != ""
        require_all_well(pair, verb, f"a full disk at {point} of {verb.name}: {refusal}")
    require_most(f"{verb.name}, disk full ({refused} refused)", met)


def fill(victim: AgentDriver) -> None:
    """Fill the disk with the state."""
    victim.run("sh", "-c", f"dd if=/dev/zero of={STATE}/ballast bs=4k 2>/dev/null; true")


@pytest.mark.parametrize("verb", CHANGES, ids=lambda verb: verb.name)
def test_the_power_fails_at_each_kind_of_point(pair: Pair, verb: Verb) -> None:
    """The kernel's state, /run and all containers are lost; the file has what was committed."""
    met = {
        point: crash(pair, verb, point, lose_power) for point in of_each_kind(points(pair, verb))
    }
    require_most(f"{verb.name}, power cut", met)


def lose_power(pair: Pair) -> None:
    """Have the second host lose what a power cut takes.

    It stays on a network that was exposed by hand, also without its container.
    """
    pair.may_stay_exposed = True
    pair.two.run("sh", "-c", POWER_CUT)


@pytest.mark.parametrize("verb", CHANGES, ids=lambda verb: verb.name)
def test_the_client_dies_at_each_kind_of_point(pair: Pair, verb: Verb) -> None:
    """The agent finishes what was asked for, or takes it back."""
    met = {}
    for point in of_each_kind(points(pair, verb)):
        with Stopped(pair, verb, point) as stopped:
            stopped.client.kill()
        met[point] = stopped.end()
        require_all_well(pair, verb, f"the client's death at {point} of {verb.name}")
    require_most(f"{verb.name}, client killed", met)


FROZEN = [
    BY_NAME[name]
    for name in (
        "attach", "network create", "grant, asking", "grant, giving", "rotate, making",
        "rotate, following", "join", "leave",
    )
]  # fmt: skip


@pytest.mark.parametrize("verb", FROZEN, ids=lambda verb: verb.name)
def test_the_agent_sleeps_until_it_is_dead_to_others(pair: Pair, verb: Verb) -> None:
    """Before or after the first and the last commit: it goes on as if nothing had been."""
    met = {}
    seen = [each for each in of_each_kind(points(pair, verb)) if each.startswith(COMMITS)]
    victim = verb.victim(pair)
    (other,) = (each for each in pair.both if each is not victim)
    for point in seen:
        with Stopped(pair, verb, point) as stopped, contextlib.suppress(TimedOutError):
            wait_until(lambda: "dead" in states(other), "seen dead", DEAD_S)
        met[point] = stopped.end()
        require_all_well(pair, verb, f"a sleep at {point} of {verb.name}")
    require_most(f"{verb.name}, asleep", met)


def states(driver: AgentDriver) -> set[str]:
    """Return the states in which a host sees others."""
    return {str(each["state"]) for each in driver.get("/v1/members")["members"]}
