"""Commands dns add, lookup, ls and rm."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run

ADD = ("dns", "add", "front")


def test_a_record_may_go_with_a_container(overlayd: Run, agent: FakeAgent) -> None:
    """With the container's own addresses, or with others."""
    added = {"name": "front", "network": "blue", "ips": ["10.32.0.2"], "told": ["10.32.0.2"]}
    agent.answer("POST /v1/dns", added)
    outcome = overlayd(*ADD, "own", "--for", "web", "--network", "blue")

    assert (outcome.code, outcome.out) == (0, "")
    assert outcome.err == "front is 10.32.0.2 on blue, as long as web is\n"
    fields = {"name": "front", "network": "blue", "target": "web"}
    assert agent.asked[-1].body == {**fields, "ips": []}
    overlayd(*ADD, "10.32.0.2", "--for", "web", "--network", "blue")
    assert agent.asked[-1].body == {**fields, "ips": ["10.32.0.2"]}


@pytest.mark.parametrize("words", [("own",), ("10.32.0.9", "own", "--for", "web")])
def test_own_addresses_are_those_of_a_container(
    overlayd: Run, agent: FakeAgent, words: tuple[str, ...]
) -> None:
    """The word stands alone."""
    outcome = overlayd(*ADD, *words, "--network", "blue")

    assert outcome.code == 2
    assert "overlayd dns add front own --for CONTAINER --network blue" in outcome.err
    assert agent.asked == []
