"""key rotate and key status."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run


def status() -> dict[str, Any]:
    """Return the status of a settled keyring."""
    now_s = int(time.time())
    return {
        "schema": "overlayd.key-status/v1",
        "generation": 6,
        "step": "settled",
        "waiting_for": [],
        "waiting_s": None,
        "interval_s": 86_400.0,
        "next": now_s + 7290,
        "held": [{"generation": 6, "mark": "a83c", "made": now_s - 3690, "sealing": True}],
        "accepted": [{"generation": 6, "mark": "a83c", "datagrams": 912}],
        "unknown": 3,
        "peers": [
            {"id": "n-1", "name": "vm1", "state": "alive", "newest": 6, "sealing": 6, "self": True},
            {"id": "n-2", "name": "vm2", "state": "dead", "newest": None, "sealing": None,
             "self": False},
        ],
    }  # fmt: skip


def test_key_status_shows_each_member(overlayd: Run, agent: FakeAgent) -> None:
    """The output has this host's key, the rotation's state, and a line for each member."""
    shown = status()
    agent.answer("GET /v1/keys", shown)
    lines = [" ".join(line.split()) for line in overlayd("key", "status").out.splitlines()]

    assert lines[:2] == ["Generation 6, created 1h 01m ago", "Rotation settled"]
    assert lines[2:5] == [
        "Next in 2h 01m, created here",
        "Datagrams 912 of generation 6",
        "Refused 3 of a removed or unknown generation",
    ]
    assert lines[-2:] == ["vm1 alive 6 6", "vm2 dead - -"]
    assert overlayd("key", "status", "--no-header").out.splitlines()[0].split()[0] == "vm1"
    assert json.loads(overlayd("key", "status", "--json").out) == shown


def test_key_status_shows_a_rotation_that_waits(overlayd: Run, agent: FakeAgent) -> None:
    """A waiting rotation names the member, the time, and other keys held."""
    shown = status() | {"step": "using", "waiting_for": ["vm2", "vm3"], "waiting_s": 61.0}
    shown["held"].insert(0, shown["held"][0] | {"generation": 5, "sealing": False})
    shown["next"] = None
    agent.answer("GET /v1/keys", shown)
    lines = [" ".join(line.split()) for line in overlayd("key", "status").out.splitlines()]

    assert lines[1] == "Rotation using: waiting for vm2, vm3, 1m 01s"
    assert lines[2] == "Also held 5"
    assert not [line for line in lines if line.startswith("Next")]


def test_key_rotate_prints_the_generation_in_use(overlayd: Run, agent: FakeAgent) -> None:
    """Stderr names the generation; --json prints the object."""
    done = {"schema": "overlayd.key-rotate/v1", "generation": 7, "mark": "9f02"}
    agent.answer("POST /v1/keys/rotate", done)

    assert overlayd("key", "rotate").err == "generation 7 is in use by all members\n"
    assert json.loads(overlayd("key", "rotate", "--json").out) == done
    agent.fail("POST /v1/keys/rotate", "timed-out", 504, why="waiting for vm3")
    assert overlayd("key", "rotate").code == 7
