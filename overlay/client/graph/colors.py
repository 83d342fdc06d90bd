"""A color for each network: far from each other, and readable on white and on black."""

from __future__ import annotations

from collections.abc import Sequence

COLORS = (
    "#4477aa", "#ee6677", "#228833", "#ccbb44", "#66ccee", "#aa3377", "#997700", "#994455",
)  # fmt: skip


def by_network(networks: Sequence[str]) -> dict[str, str]:
    """Return the color of each network; with many, colors come again."""
    return {name: COLORS[number % len(COLORS)] for number, name in enumerate(networks)}
