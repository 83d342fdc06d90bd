"""Prometheus' text format."""

from __future__ import annotations

from overlay import prometheus
from overlay.prometheus import Family, Histogram, HistogramFamily, Sample


def test_a_family_has_its_help_and_type_before_its_samples() -> None:
    """A name that ends in `_total` is a counter, any other a gauge."""
    shown = prometheus.text(
        [
            Family("a_total", "As.", [Sample(2), Sample(3.5, (("kind", "x"), ("of", "y")))]),
            Family("b", "Bs.", [Sample(True)]),
        ]
    )
    assert shown.splitlines() == [
        "# HELP a_total As.",
        "# TYPE a_total counter",
        "a_total 2",
        'a_total{kind="x",of="y"} 3.5',
        "# HELP b Bs.",
        "# TYPE b gauge",
        "b 1",
    ]


def test_a_family_without_samples_is_left_out() -> None:
    """A help text alone would say that something is measured."""
    assert prometheus.text([Family("a", "As.", [])]) == "\n"


def test_a_histogram_counts_up_to_each_bound() -> None:
    """Each bucket includes those below it; a value on a bound is within it."""
    times = Histogram((0.1, 1.0))
    for value in (0.05, 0.1, 0.5, 7.0):
        times.observe(value)
    assert prometheus.text([HistogramFamily("t_seconds", "Times.", times)]).splitlines() == [
        "# HELP t_seconds Times.",
        "# TYPE t_seconds histogram",
        't_seconds_bucket{le="0.1"} 2',
        't_seconds_bucket{le="1"} 3',
        't_seconds_bucket{le="+Inf"} 4',
        "t_seconds_sum 7.65",
        "t_seconds_count 4",
    ]


def test_labels_are_escaped() -> None:
    """No external text breaks a line or a label."""
    shown = prometheus.text([Family("a", "As.", [Sample(1, (("reason", 'a"b\\c\nd'),))])])
    assert '{reason="a\\"b\\\\c\\nd"} 1' in shown
