"""Command token."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING

import pytest
from overlay.cli.verbs.token import seconds
from overlay.errors import UsageError

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run

TOKEN = "ovt1.EXAMPLE"


def test_token_show_prints_the_token_alone(overlayd: Run, agent: FakeAgent) -> None:
    """Stdout has only the token, for a file or a pipe."""
    agent.answer("GET /v1/token", {"schema": "overlayd.token/v1", "token": TOKEN})

    assert overlayd("token", "show").out == f"{TOKEN}\n"


def test_token_create_prints_the_token_alone(overlayd: Run, agent: FakeAgent) -> None:
    """Stdout has only the token; stderr has the command that revokes it."""
    made = {"schema": "overlayd.token-create/v1", "id": "00ff" * 4, "token": TOKEN}
    agent.answer("POST /v1/tokens", made)
    outcome = overlayd("token", "create", "--expires", "24h", "--uses", "3", "--label", "rack7")

    assert outcome.out == f"{TOKEN}\n"
    assert "overlayd token revoke 00ff00ff" in outcome.err
    assert agent.asked[-1].body == {"expires_s": 86_400, "uses": 3, "label": "rack7"}
    overlayd("token", "create")
    assert agent.asked[-1].body == {"expires_s": None, "uses": None, "label": None}


def test_tokens_are_a_table(overlayd: Run, agent: FakeAgent) -> None:
    """Each token has a line, with its remaining lifetime and uses."""
    token = {
        "id": "00ff" * 4, "label": "rack7", "state": "valid", "created": int(time.time()) - 3690,
        "expires": int(time.time()) + 7290, "uses": 1, "uses_max": 3, "nodes": ["vm2"],
    }  # fmt: skip
    other = token | {"label": "", "expires": None, "uses_max": None, "state": "revoked"}
    answer = {"schema": "overlayd.token-ls/v1", "tokens": [token, other]}
    agent.answer("GET /v1/tokens", answer)
    first, second = overlayd("token", "ls", "--no-header").out.splitlines()

    assert " ".join(first.split()) == "00ff00ff rack7 valid 1h 01m 2h 01m 1 of 3 vm2"
    assert " ".join(second.split()) == "00ff00ff - revoked 1h 01m never 1 vm2"
    assert json.loads(overlayd("token", "ls", "--json").out) == answer


def test_a_token_is_revoked_by_its_id(overlayd: Run, agent: FakeAgent) -> None:
    """A prefix of the id is enough; an invalid id is refused locally."""
    done = {"schema": "overlayd.token-revoke/v1", "revoked": "00ff" * 4}
    agent.answer("DELETE /v1/tokens/00ff", done)

    assert overlayd("token", "revoke", "00ff").code == 0
    assert overlayd("token", "revoke", "../status").code == 2


@pytest.mark.parametrize(
    ("text", "value"), [("90s", 90), ("30m", 1800), ("24h", 86_400), ("7d", 604_800)]
)
def test_durations_are_numbers_with_a_unit(text: str, value: int) -> None:
    """Units range from seconds to weeks."""
    assert seconds(text) == value


@pytest.mark.parametrize("text", ["", "24", "h", "0h", "-1h", "1.5h", "1y", "1h30m"])
def test_an_invalid_duration_is_refused(text: str) -> None:
    """Missing, unknown and combined units are refused."""
    with pytest.raises(UsageError, match="invalid duration"):
        seconds(text)
