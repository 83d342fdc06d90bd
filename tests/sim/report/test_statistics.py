from __future__ import annotations

import math
from xml.etree import ElementTree as ET

from overlay.sim.report.plot import ConvergencePlot, render_svg
from overlay.sim.report.statistics import count_text, duration_text, percentile, table


def test_percentiles_are_values_that_occur() -> None:
    """The 99th percentile of 100 values is the 99th.

    Of few values, it is the greatest.
    """
    values = [float(number) for number in range(1, 101)]

    assert percentile(values, 0.99) == 99
    assert percentile(values, 0.5) == 50
    assert percentile([3.0, 1.0], 0.99) == 3.0
    assert math.isnan(percentile([], 0.5))


def test_durations_have_a_fitting_unit() -> None:
    """Milliseconds, seconds or minutes, with three digits."""
    assert duration_text(0.0123) == "12.3 ms"
    assert duration_text(7.5) == "7.5 s"
    assert duration_text(3600) == "60 min"
    assert duration_text(math.inf) == "never"
    assert count_text(1234567) == "1,234,567"


def test_a_table_is_aligned() -> None:
    """Columns are as wide as their widest cell."""
    assert table(("a", "figure"), [("long name", "1")]) == (
        "| a         | figure |\n|-----------|--------|\n| long name | 1      |"
    )


def test_the_plot_is_valid_xml() -> None:
    """Every plot can be parsed, and the curve stays within the axes."""
    for points in ([], [(0.0, 1.0)], [(float(t), (t % 10) / 10) for t in range(9000)]):
        picture = ConvergencePlot("a < b & c", points, storm_end_s=20.0, faults_s=[1.0, 5.0])
        root = ET.fromstring(render_svg(picture))  # noqa: S314 - our own text

        [curve] = [item for item in root if item.tag.endswith("polyline")]
        for pair in curve.attrib["points"].split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= 860
            assert 0 <= y <= 360
