"""Commands `apply` and `export`: plans, exit codes, and errors with their lines."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run

FILE = 'owner = "shop"\n\n[[network]]\nname = "blue"\nsubnets = [\n  "10.0.0.0/8",\n]\n'
STEP = {"action": "create", "kind": "network", "name": "blue", "changes": [], "done": False}
CHANGE = {
    "action": "change",
    "kind": "dns",
    "name": "blue/db",
    "changes": [{"setting": "ips", "before": "10.0.0.1", "after": "-"}],
    "done": False,
}


def answer(*steps: dict[str, Any], dry_run: bool = False, failure: Any = None) -> dict[str, Any]:
    """Return what the agent says of a file."""
    return {"owner": "shop", "dry_run": dry_run, "changes": list(steps), "failure": failure}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a file."""
    path = tmp_path / "shop.toml"
    path.write_text(FILE)
    return path


def test_a_plan_is_drawn_and_its_exit_code_tells(
    overlayd: Run, agent: FakeAgent, file: Path
) -> None:
    """One line for each object; 8 only if something would change."""
    agent.answer("POST /v1/apply", answer(STEP, CHANGE, dry_run=True))
    outcome = overlayd("apply", "--dry-run", "--prune", str(file))

    assert outcome.out == "+ network blue\n~ DNS record blue/db: ips 10.0.0.1 → -\n"
    assert (outcome.code, "2 changes to make" in outcome.err) == (8, True)
    assert agent.asked[0].body == {
        "file": tomllib.loads(FILE), "dry_run": True, "prune": True,
    }  # fmt: skip
    agent.answer("POST /v1/apply", answer(dry_run=True))
    outcome = overlayd("apply", "--dry-run", str(file))
    assert (outcome.code, outcome.out, "nothing to change" in outcome.err) == (0, "", True)


def test_what_was_not_done_is_said(overlayd: Run, agent: FakeAgent, file: Path) -> None:
    """Finished steps are the answer; the others, with the reason, are messages."""
    failure = {"code": "failed", "what": "no room", "why": "", "hint": "", "field": "network[0]"}
    agent.answer("POST /v1/apply", answer(STEP | {"done": True}, CHANGE, failure=failure))
    outcome = overlayd("apply", str(file))

    assert (outcome.code, outcome.out) == (4, "+ network blue\n")
    assert f"{file}:3: no room" in outcome.err
    assert "not made: ~ DNS record blue/db" in outcome.err
    assert "1 of 2 changes made" in outcome.err


def test_an_unknown_section_has_its_line(overlayd: Run, agent: FakeAgent, file: Path) -> None:
    """The agent names it without a number, as it knows no list of that name."""
    file.write_text('owner = "shop"\n\n[[netwrok]]\nname = "x"\n', encoding="utf-8")
    agent.fail("POST /v1/apply", "usage", 400, what="unknown field 'netwrok'", field="netwrok")
    outcome = overlayd("apply", str(file))

    assert f"error: {file}:3: unknown field 'netwrok'" in outcome.err


def test_the_agents_error_names_the_line(overlayd: Run, agent: FakeAgent, file: Path) -> None:
    """Also in the cause, where that names another object."""
    agent.fail("POST /v1/apply", "conflict", 409, what="it overlaps",
               why="as does network[0].name", field="network[0].subnets[0].subnet")  # fmt: skip
    outcome = overlayd("apply", str(file))

    assert outcome.code == 6
    assert f"error: {file}:6: it overlaps\n  why:   as does on line 4" in outcome.err


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('owner = "a"\nowner = "b"\n', ":2: this is not valid TOML"),
        ("[[network]\n", ":1: this is not valid TOML"),
        ('{"owner": "a",\n}', ":2: this is not valid JSON"),
        ('{"owner": "a",\n"owner": "b"}', ":2: owner is given twice"),
        ("x = " + "[" * 5000, "nested too deeply"),
        ("x = 1\n" * 20_000, "too large"),
    ],
)
def test_a_malformed_file_is_refused(
    overlayd: Run, agent: FakeAgent, file: Path, text: str, told: str
) -> None:
    """With its line, before the agent is asked."""
    file.write_text(text)
    outcome = overlayd("apply", str(file))

    assert (outcome.code, told in outcome.err) == (2, True)
    assert not agent.asked


def test_an_export_is_a_file(overlayd: Run, agent: FakeAgent) -> None:
    """TOML without empty sections, in which a subnet without options is its text; JSON as it is."""
    subnets = [{"subnet": "10.0.0.0/8"}, {"subnet": "fd00::/64", "gateway": "fd00::1"}]
    exported = {"schema": "overlayd.export/v1", "owner": None, "dns": [],
                "network": [{"name": "blue", "subnets": subnets}]}  # fmt: skip
    agent.answer("GET /v1/export", exported)

    assert tomllib.loads(overlayd("export").out) == {
        "network": [{"name": "blue", "subnets": ["10.0.0.0/8", subnets[1]]}]
    }
    assert json.loads(overlayd("export", "--owner", "shop", "--json").out) == exported
    assert agent.asked[-1].query == {"owner": ["shop"]}
