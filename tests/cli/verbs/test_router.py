"""The verbs on routers send their requests and print the answers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run

ROUTER: dict[str, Any] = {
    "schema": "overlayd.router-set/v1",
    "name": "r1",
    "networks": ["blue", "red"],
    "removed_vnis": [],
    "allow_clear": False,
    "labels": {},
}


@pytest.mark.parametrize(
    ("words", "body"),
    [
        (["--add", "green"], {"add": ["green"]}),
        (
            ["--remove", "red", "--allow-clear", "on", "--label", "none"],
            {"remove": ["red"], "allow_clear": True, "labels": {}},
        ),
        (["--label", "team=a"], {"labels": {"team": "a"}}),
    ],
)
def test_only_what_was_given_changes(
    overlayd: Run, agent: FakeAgent, words: list[str], body: dict[str, Any]
) -> None:
    """The rest is left out; what is so already is said."""
    agent.answer("POST /v1/routers/r1", ROUTER | {"changed": False})
    outcome = overlayd("router", "set", "r1", *words)

    assert (outcome.code, agent.asked[-1].body) == (0, body)
    assert outcome.out == "r1  connects blue red\n"
    assert "no change" in outcome.err


def test_a_change_of_nothing_is_refused(overlayd: Run) -> None:
    """With an example."""
    outcome = overlayd("router", "set", "r1")

    assert outcome.code == 2
    assert "--add green" in outcome.err


def test_an_empty_list_says_what_to_do(overlayd: Run, agent: FakeAgent) -> None:
    """Also where a filter leaves nothing."""
    agent.answer("GET /v1/routers", {"schema": "overlayd.router-ls/v1", "routers": []})

    assert "overlayd router create NAME" in overlayd("router", "ls").err
    assert "matches the filter" in overlayd("router", "ls", "--filter", "name=x").err


def test_what_is_not_connected_is_noted(overlayd: Run, agent: FakeAgent) -> None:
    """Beside the table of what reaches what."""
    member = {
        "name": "blue", "vni": 7, "subnets": ["10.7.0.0/24"], "encrypted": True,
        "hosts": ["vm1"], "reaches": [],
    }  # fmt: skip
    shown = ROUTER | {"allow_clear": True, "members": [member], "notes": ["they overlap"]}
    agent.answer("GET /v1/routers/r1", shown)
    outcome = overlayd("router", "inspect", "r1")

    assert "blue (encrypted)" in outcome.out
    assert "r1: they overlap" in outcome.err
