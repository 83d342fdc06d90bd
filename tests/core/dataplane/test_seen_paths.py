"""Which of the paths that members have used still count."""

from __future__ import annotations

from overlay import limits
from overlay.core.dataplane.underlay_filter import ArrivalPath, SeenPaths
from overlay.model import Ip

ONE, TWO = Ip(bytes([10, 0, 0, 1])), Ip(bytes([10, 0, 0, 2]))
OLD, NEW, OTHERS = ArrivalPath(2, ONE), ArrivalPath(3, ONE), ArrivalPath(2, TWO)
KEPT_S = limits.ARRIVAL_PATH_KEPT_S


def seen(*uses: tuple[ArrivalPath, float]) -> frozenset[ArrivalPath]:
    """Return the paths that count after these uses."""
    paths = SeenPaths()
    for path, at in uses:
        paths.note(path, at)
    return paths.paths()


def test_each_path_is_new_once() -> None:
    """One that was forgotten is new again."""
    paths = SeenPaths()
    assert [paths.note(path, 0.0) for path in (OLD, OLD, NEW, OTHERS)] == [True, False, True, True]
    paths.keep(frozenset({OLD, OTHERS}))
    assert paths.note(NEW, 1.0)


def test_a_silent_member_keeps_its_paths() -> None:
    """However long it is silent, and whatever others do."""
    assert seen((OLD, 0.0), (OTHERS, 9 * KEPT_S)) == {OLD, OTHERS}


def test_a_path_that_was_left_for_long_is_forgotten() -> None:
    """One datagram by another interface, after a long silence, is not long."""
    assert seen((OLD, 0.0), (NEW, 5 * KEPT_S)) == {OLD, NEW}
    assert seen((OLD, 0.0), (NEW, 1.0), (NEW, KEPT_S)) == {OLD, NEW}
    assert seen((OLD, 0.0), (NEW, 1.0), (NEW, 1.0 + KEPT_S)) == {NEW}


def test_paths_that_are_used_in_turn_are_kept() -> None:
    """As with two routes of equal cost."""
    uses = [(path, at * KEPT_S / 2) for at in range(9) for path in (OLD, NEW)]
    assert seen(*uses) == {OLD, NEW}


def test_restored_paths_count_as_used() -> None:
    """A start of the agent forgets none; what this process saw is not overruled."""
    paths = SeenPaths()
    paths.restore({OLD, NEW})
    paths.note(NEW, 0.0)
    paths.restore({OLD})
    paths.note(NEW, KEPT_S)
    assert paths.paths() == {NEW}
