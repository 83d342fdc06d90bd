"""Columns are fitted into a width; nothing is lost."""

from __future__ import annotations

import pytest
from overlay.cli.screen.columns import fitted, hanging, wrapped


@pytest.mark.parametrize(
    ("widths", "words", "room", "found"),
    [
        ([4, 10], [4, 10], 20, [4, 10]),  # all fits
        ([4, 30, 10], [4, 12, 10], 38, [4, 20, 10]),  # the widest gives room
        ([40, 25, 4], [5, 5, 4], 44, [18, 18, 4]),  # then the next
        ([40, 25, 4], [30, 5, 4], 44, [30, 6, 4]),  # words stay whole
        ([40, 25, 4], [30, 20, 4], 44, [18, 18, 4]),  # if they can
        ([9, 9, 6], [9, 9, 6], 10, [8, 8, 6]),  # none becomes too narrow to read
    ],
)
def test_the_widest_columns_become_narrower(
    widths: list[int], words: list[int], room: int, found: list[int]
) -> None:
    """Until the line fits; narrow ones stay as they are."""
    assert fitted(widths, words, room) == found


@pytest.mark.parametrize("width", [8, 11, 20, 40, 200])
@pytest.mark.parametrize(
    "text",
    ["10.32.0.0/16 fd40::/64 10.99.0.0/24", "to: lost, from: silent", "a" * 50, "", "x  y   z"],
)
def test_wrapping_loses_nothing(text: str, width: int) -> None:
    """All characters but spaces are there, in order, and no line is too long."""
    lines = wrapped(text, width)
    assert "".join(lines).replace(" ", "") == text.replace(" ", "")
    assert all(len(line) <= width for line in lines)
    assert lines


def test_words_stay_whole_where_they_fit() -> None:
    """A line ends between words; a word that is too long is cut after a slash or comma."""
    assert wrapped("10.32.0.0/16 10.33.0.0/16", 14) == ["10.32.0.0/16", "10.33.0.0/16"]
    assert wrapped("one,two,three", 8) == ["one,two,", "three"]


def test_styles_take_no_room() -> None:
    """A coloured word counts as its letters only."""
    assert wrapped("\x1b[32malive\x1b[0m now", 9) == ["\x1b[32malive\x1b[0m now"]


def test_further_lines_keep_the_indent() -> None:
    """A wrapped hint stays below its message."""
    assert hanging("   next: look here", 14) == ["   next: look", "   here"]
