"""Many members that fall silent at once are this node's own fault."""

from __future__ import annotations

import pytest
from overlay.core.membership.partition_guard import PartitionGuard
from overlay.core.protocol.settings import ProtocolSettings
from overlay.model import NodeId


def weigh(partition_guard: PartitionGuard, alive: int, suspects: int, now: float = 0.0) -> bool:
    """Evaluate with a window of 24 s and a calm of 4 s."""
    partition_guard.evaluate(alive, suspects, window_s=24.0, calm_s=4.0, now=now)
    return partition_guard.is_set


@pytest.mark.parametrize(
    ("alive", "suspects", "frozen"),
    [
        (0, 2, False),  # a cluster of three may lose two
        (0, 3, True),
        (5, 3, False),  # 3 of 9 is just a third
        (4, 3, True),  # 3 of 8 is
        (27, 12, False),
        (11, 28, True),
    ],
)
def test_more_than_a_third(alive: int, suspects: int, *, frozen: bool) -> None:
    """More than a third of the members, and at least three, freeze."""
    assert weigh(PartitionGuard(ProtocolSettings()), alive, suspects) is frozen


def test_recent_deaths_count() -> None:
    """Members that died within one suspicion timeout count as silent."""
    partition_guard = PartitionGuard(ProtocolSettings())
    partition_guard.note_death(NodeId(b"a" * 16), 0.0)
    partition_guard.note_death(NodeId(b"b" * 16), 1.0)

    assert weigh(partition_guard, 3, 2, now=23.0)
    assert partition_guard.next_timer(24.0, 4.0) == 24.0
    assert weigh(partition_guard, 3, 2, now=24.0)  # 3 of 7
    assert weigh(partition_guard, 3, 2, now=25.0)  # 2 of 6: calm begins
    assert partition_guard.next_timer(24.0, 4.0) == 29.0
    assert not weigh(partition_guard, 3, 2, now=29.0)


def test_a_member_that_is_back_does_not_count() -> None:
    """A dead member that returns, leaves or is forgotten does not count."""
    partition_guard = PartitionGuard(ProtocolSettings())
    for letter in b"abc":
        partition_guard.note_death(NodeId(bytes([letter]) * 16), 0.0)
    assert weigh(partition_guard, 0, 0)

    for letter in b"abc":
        partition_guard.note_end(NodeId(bytes([letter]) * 16))

    assert partition_guard.death_count == 0
    weigh(partition_guard, 3, 0, now=1.0)
    assert not weigh(partition_guard, 3, 0, now=5.0)


def test_healing_must_last() -> None:
    """A moment with all reachable does not end the freeze, a while does."""
    partition_guard = PartitionGuard(ProtocolSettings())
    assert weigh(partition_guard, 2, 5)
    assert weigh(partition_guard, 7, 0, now=10.0)
    assert weigh(partition_guard, 2, 5, now=13.0)
    assert weigh(partition_guard, 7, 0, now=20.0)

    assert weigh(partition_guard, 7, 0, now=23.9)
    assert not weigh(partition_guard, 7, 0, now=24.0)


def test_a_change_is_reported_once() -> None:
    """Only the evaluation that changes the result returns True."""
    partition_guard = PartitionGuard(ProtocolSettings())

    changes = [
        partition_guard.evaluate(alive, suspects, window_s=24.0, calm_s=4.0, now=now)
        for now, alive, suspects in [(0, 2, 5), (1, 2, 5), (2, 7, 0), (6, 7, 0), (7, 7, 0)]
    ]

    assert changes == [True, False, False, True, False]
