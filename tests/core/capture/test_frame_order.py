"""Frames of several hosts come out by time."""

from __future__ import annotations

from overlay import limits
from overlay.core.capture.frame_order import FrameOrder


def test_a_late_frame_comes_in_its_place() -> None:
    """If it comes before the others have waited long enough."""
    order = FrameOrder[str](hold_ns=100)
    order.add(10, "first", 1)
    order.add(30, "third", 1)
    assert order.ready(100) == []
    order.add(20, "second", 1)
    assert order.ready(120) == ["first", "second"]
    assert order.rest() == ["third"]


def test_frames_of_one_moment_keep_their_order() -> None:
    """That of their arrival."""
    order = FrameOrder[str](hold_ns=0)
    for each in ("a", "b", "c"):
        order.add(5, each, 1)
    assert order.ready(5) == ["a", "b", "c"]


def test_only_so_many_wait() -> None:
    """The oldest go on."""
    order = FrameOrder[int](hold_ns=10**18)
    for number in range(6):
        order.add(number, number, limits.CAPTURE_HELD_SIZE_MAX // 3)
    assert order.ready(0) == [0, 1, 2]
    assert order.rest() == [3, 4, 5]
