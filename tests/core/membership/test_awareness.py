"""Local health."""

from __future__ import annotations

from overlay.core.membership.awareness import Awareness


def test_slowness_multiplies_waiting() -> None:
    """Each sign of slowness adds one normal timeout."""
    awareness = Awareness(8)
    assert awareness.scaled(0.5) == 0.5

    awareness.adjust(+2)

    assert awareness.score == 2
    assert awareness.scaled(0.5) == 1.5


def test_score_stays_within_bounds() -> None:
    """Neither long health nor long slowness exceeds the bounds."""
    awareness = Awareness(8)
    awareness.adjust(-5)
    assert awareness.score == 0

    awareness.adjust(+100)

    assert awareness.score == 7
