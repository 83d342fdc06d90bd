"""The site's pages that are made from the code."""

from __future__ import annotations

import re

from scripts.api_page import api_page, document
from scripts.metrics_page import metrics_page
from tests.metric_examples import example_text


def test_the_reference_lists_every_metric() -> None:
    """Each family of an agent's metrics has a row with its type, labels and help text."""
    row = r"^\| `(overlayd_\w+)` \| (\w+) \| (.*) \| (.*) \|$"
    rows = re.findall(row, metrics_page(), re.MULTILINE)

    families = re.findall(r"^# HELP (\S+) (.*)$", example_text(), re.MULTILINE)
    assert [(name, told) for name, _, _, told in rows] == families
    assert {kind for _, kind, _, _ in rows} == {"counter", "gauge", "histogram"}
    labels = {name: labels for name, _, labels, _ in rows}
    assert labels["overlayd_subnet_addresses_free"] == "`network`, `subnet`"


def test_the_reference_lists_every_operation_and_shape() -> None:
    """Each path of the OpenAPI document has a section, and each link to a shape leads there."""
    page = api_page()
    headings = re.findall(r"^## (.+)$", page, re.MULTILINE)

    described = document()
    operations = {
        f"{method.upper()} {path}" for path, methods in described["paths"].items()
        for method in methods
    }  # fmt: skip
    shapes = set(described["components"]["schemas"])
    assert set(headings) == operations | shapes
    linked = set(re.findall(r"\]\(#(\w+)\)", page))
    assert linked <= {shape.lower() for shape in shapes}


def test_a_field_has_its_type_bounds_and_default() -> None:
    """As the document declares them."""
    rows = api_page().splitlines()

    assert '| `schema` | `"overlayd.ipam/v1"` |' in rows
    assert "| `force` | boolean or null | `false` |" in rows
