"""Selecting rows of a list with --filter."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from overlay.cli.options.filters import filter_rows
from overlay.errors import UsageError

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run

ROWS: list[dict[str, Any]] = [
    {"name": "web", "network": "blue", "labels": {"team": "a", "tier": "front"}},
    {"name": "db", "network": "blue", "labels": {"team": "b=c"}},
    {"name": "web", "network": "red", "labels": {}},
]
FIELDS = {"name": "name", "network": "network"}


@pytest.mark.parametrize(
    ("filters", "rows"),
    [
        ([], [0, 1, 2]),
        (["label=team"], [0, 1]),
        (["label=team=a"], [0]),
        (["label=team=b=c"], [1]),
        (["label=team=x"], []),
        (["label=team", "label=tier=front"], [0]),
        (["name=web"], [0, 2]),
        (["name=web", "network=red"], [2]),
        (["name=WEB", "network=Red"], [2]),
    ],
)
def test_all_filters_must_match(filters: list[str], rows: list[int]) -> None:
    """Rows are selected by label name, label value, other keys, and several filters."""
    assert filter_rows(ROWS, filters, FIELDS) == [ROWS[index] for index in rows]


@pytest.mark.parametrize("text", ["web", "colour=red", "label=", "=x"])
def test_an_invalid_filter_is_refused(text: str) -> None:
    """The hint lists the valid keys."""
    with pytest.raises(UsageError, match="invalid filter") as caught:
        filter_rows(ROWS, [text], FIELDS)

    assert "label=NAME[=VALUE]" in caught.value.hint


def test_filters_apply_to_json_output_too(overlayd: Run, agent: FakeAgent) -> None:
    """With no match, the note mentions the filter."""
    shown = [{**row, "vni": 1, "subnets": [], "endpoints": 0, "hosts": []} for row in ROWS]
    agent.answer("GET /v1/networks", {"schema": "overlayd.network-ls/v1", "networks": shown})
    outcome = overlayd("network", "ls", "--filter", "label=team=a", "--json")
    nothing = overlayd("network", "ls", "--filter", "name=nobody")

    assert [row["name"] for row in json.loads(outcome.out)["networks"]] == ["web"]
    assert (nothing.out, "matches the filter" in nothing.err) == ("", True)
