"""The site's reference of the metrics, made from what an agent with every kind of thing shows."""

from __future__ import annotations

import re
from collections.abc import Iterator

from tests.metric_examples import example_text

INTRODUCTION = """# Metrics

Made from the definitions in the code; `overlayd metrics` prints them with their values, and
[monitoring](../guide/monitoring.md) says how Prometheus gets them.
A name that ends in `_total` is a counter: it exists from the start, and begins again at zero with
the agent. `_seconds` with buckets is a histogram. All others are gauges.

| metric | type | labels | meaning |
|---|---|---|---|
"""


def metrics_page() -> str:
    """Return a table with a row for each metric."""
    return INTRODUCTION + "\n".join(_rows(example_text())) + "\n"


def _rows(text: str) -> Iterator[str]:
    for name, meaning in re.findall(r"^# HELP (\S+) (.*)$", text, re.MULTILINE):
        (kind,) = re.findall(rf"^# TYPE {name} (\w+)$", text, re.MULTILINE)
        (first, *_) = re.findall(rf"^{name}(?:_bucket)?(?:\{{(.*?)\}})? ", text, re.MULTILINE)
        labels = [f"`{label}`" for label in re.findall(r'(\w+)="', first) if label != "le"]
        yield f"| `{name}` | {kind} | {', '.join(labels)} | {meaning} |"
