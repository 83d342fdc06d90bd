"""Render the convergence curve as SVG, without a library.

Owns: axes, curve, shading and marks (https://www.w3.org/TR/SVG2/).
Does not: know what the curve measures.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from xml.sax.saxutils import escape

_WIDTH: Final = 860
_HEIGHT: Final = 360
_LEFT: Final = 60
_RIGHT: Final = 20
_TOP: Final = 46
_BOTTOM: Final = 46
_POINTS_MAX: Final = 2000
_STYLE: Final = """
  text { font: 12px system-ui, sans-serif; fill: #333 }
  .title { font-size: 15px; font-weight: 600 }
  .axis { stroke: #888; stroke-width: 1 }
  .grid { stroke: #ddd; stroke-width: 1 }
  .storm { fill: #f4e3d3 }
  .fault { stroke: #c2410c; stroke-width: 1; stroke-dasharray: 2 3; opacity: .6 }
  .curve { fill: none; stroke: #1d4ed8; stroke-width: 1.8 }
"""


@dataclass(frozen=True, slots=True)
class ConvergencePlot:
    """The data: shares (0 to 1) over seconds, storm end and fault times."""

    title: str
    points: Sequence[tuple[float, float]]
    storm_end_s: float
    faults_s: Sequence[float] = ()


def render_svg(picture: ConvergencePlot) -> str:
    """Return the plot as the text of an SVG file."""
    end_s = max([1e-9, picture.storm_end_s, *(time for time, _ in picture.points)])
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM

    def x(seconds: float) -> str:
        return f"{_LEFT + width * min(seconds, end_s) / end_s:.1f}"

    def y(share: float) -> str:
        return f"{_TOP + height * (1 - share):.1f}"

    storm = f"{width * picture.storm_end_s / end_s:.1f}"
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(picture.title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="#fff"/>',
        f'<text class="title" x="{_LEFT}" y="24">{escape(picture.title)}</text>',
        f'<rect class="storm" x="{_LEFT}" y="{_TOP}" height="{height}" width="{storm}"/>',
        f'<text x="{_LEFT + 6}" y="{_TOP - 6}">storm</text>',
        f'<text x="{x(picture.storm_end_s)}" y="{_TOP - 6}">calm</text>',
    ]
    for percent in (0, 25, 50, 75, 100):
        at = y(percent / 100)
        parts += [
            f'<line class="grid" x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>',
            f'<text x="{_LEFT - 8}" y="{at}" dy="4" text-anchor="end">{percent} %</text>',
        ]
    for tick in _ticks(end_s):
        parts.append(
            f'<text x="{x(tick)}" y="{_HEIGHT - 22}" text-anchor="middle">{tick:g} s</text>'
        )
    parts += [
        f'<line class="fault" x1="{x(at)}" x2="{x(at)}" y1="{_TOP}" y2="{_TOP + height}"/>'
        for at in picture.faults_s
    ]
    curve = " ".join(f"{x(time)},{y(share)}" for time, share in _thinned(picture.points))
    parts += [
        f'<line class="axis" x1="{_LEFT}" x2="{_LEFT}" y1="{_TOP}" y2="{_TOP + height}"/>',
        f'<polyline class="curve" points="{curve}"/>',
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _ticks(end_s: float) -> list[float]:
    """Return at most ten round times from 0 to the end."""
    exponent = math.floor(math.log10(end_s)) - 1
    steps = (digit * 10.0**power for power in (exponent, exponent + 1) for digit in (1, 2, 5))
    step = next(step for step in steps if end_s / step <= 9)
    return [step * index for index in range(int(end_s / step) + 1)]


def _thinned(points: Sequence[tuple[float, float]]) -> Sequence[tuple[float, float]]:
    step = max(1, len(points) // _POINTS_MAX)
    return [*points[::step], *points[-1:]]
