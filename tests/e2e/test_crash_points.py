"""A real agent, killed at every write and every kernel operation of its verbs in turn.

Each case is one verb on one host and the k-th point passed during it. After the crash the agent
starts again and must have kept its promises: desired equals actual on all hosts, no address is
leaked or owned twice, and nothing is left behind. Then the verb is repeated, and undone.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.e2e.crash_points import Pair, Verb, crash, crash_pair, points
from tests.e2e.crash_verbs import VERBS

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(3000)]


@pytest.fixture(scope="module")
def pair() -> Iterator[Pair]:
    """Two joined hosts with network blue, each with a namespace to attach."""
    with crash_pair() as made:
        yield made


@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_one_crash_of_each_kind(pair: Pair, verb: Verb, covered: set[str]) -> None:
    """After a kill at each kind of point not yet covered, all hosts are consistent."""
    for name in dict.fromkeys(points(pair, verb)):
        if name not in covered and crash(pair, verb, f"{name}:1"):
            covered.add(name)
    print(f"{verb.name}: {len(covered)} kinds of points covered so far")  # noqa: T201 - asked for


@pytest.fixture(scope="module")
def covered() -> set[str]:
    """Return the kinds of points at which an agent was killed."""
    return set()


@pytest.mark.chaos
@pytest.mark.parametrize("verb", VERBS, ids=lambda verb: verb.name)
def test_every_crash(pair: Pair, verb: Verb) -> None:
    """After a kill at every single point of a verb, all hosts are consistent."""
    passed = points(pair, verb)
    done = sum(crash(pair, verb, f"*:{number + 1}") for number in range(len(passed)))
    print(f"{verb.name}: {done} of {len(passed)} points covered")  # noqa: T201 - asked for
    assert done >= len(passed) * 3 // 4
