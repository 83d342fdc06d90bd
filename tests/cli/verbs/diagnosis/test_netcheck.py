"""Command `netcheck`: its output, exit code and time, with and without an agent."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from overlay.client.netcheck import agent_facts

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run

PEER: dict[str, Any] = {
    "name": "vm2", "address": "127.0.0.9", "state": "alive", "gossip_answers": True,
    "rtt_ms": 0.4, "clock_ahead_s": 0.001, "shares_network": True, "sending": "ok",
    "receiving": "ok", "is_waiting": False, "is_unheard": False, "size_expected": 1500,
    "size_carried": 1500, "size_fails": False, "size_received": 0, "filter_rewritten": False,
    "filter_broken": False, "checksum_errors": False,
}  # fmt: skip
ANSWER: dict[str, Any] = {
    "schema": "overlayd.netcheck/v1", "name": "vm1", "address": "127.0.0.1", "interface": "lo",
    "vxlan_port": 4789, "gossip_port": 7948, "peers": [PEER], "peers_left_out": 0,
    "filter_rewritten_s": None, "checksum_errors": [],
}  # fmt: skip


@pytest.fixture(autouse=True)
def _no_sandboxes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep other agents of this machine out of the picture."""
    monkeypatch.setattr(agent_facts, "_SANDBOXES", tmp_path / "netns")


def findings(printed: str) -> list[tuple[str, str]]:
    """Return subject and code of each finding that is no note."""
    return [
        (each["subject"], each["code"])
        for each in json.loads(printed)["findings"]
        if each["level"] != "note"
    ]


def test_a_whole_path_is_shown_in_one_line(overlayd: Run, agent: FakeAgent) -> None:
    """Latency, both directions, the size that passes, and the clock."""
    agent.answer("GET /v1/netcheck", ANSWER)
    outcome = overlayd("netcheck")

    assert outcome.code == 0, outcome.out
    assert "vm2" in outcome.out
    assert "gossip (7948/udp) 0.4 ms   vxlan (4789/udp) both ways   up to 1500" in outcome.out
    assert outcome.out.endswith("no problem found\n")


def test_a_lost_path_ends_with_cause_and_remedy(overlayd: Run, agent: FakeAgent) -> None:
    """The exit code is that of a degraded host; `--json` has the same."""
    agent.answer("GET /v1/netcheck", ANSWER | {"peers": [PEER | {"sending": "lost"}]})
    outcome = overlayd("netcheck", "vm2")

    assert outcome.code == 4
    assert "vxlan (4789/udp) to: lost, from: ok" in outcome.out
    assert "ERROR  VXLAN (UDP 4789) from this host does not arrive at vm2" in outcome.out
    assert "why:  gossip (UDP 7948) between the two works" in outcome.out
    assert "next: On vm2: sudo overlayd netcheck" in outcome.out
    assert agent.asked[-1].query["node"] == ["vm2"]
    as_json = overlayd("netcheck", "vm2", "--json")
    assert as_json.code == 4
    assert findings(as_json.out) == [("vm2", "vxlan-lost-to")]


def test_the_agent_gets_less_time_than_there_is(overlayd: Run, agent: FakeAgent) -> None:
    """The checks leave time for packets to silent hosts."""
    agent.answer("GET /v1/netcheck", ANSWER)
    overlayd("netcheck", "--timeout", "2.5")

    assert 0 <= int(agent.asked[-1].query["wait_ms"][0]) <= 1000


def test_without_an_agent_the_host_is_checked(overlayd: Run) -> None:
    """A socket that nobody serves is a dead agent's."""
    assert findings(overlayd("netcheck", "--json").out) in ([], [("this host", "no-route")])


def test_a_dead_agent_is_named(overlayd: Run, tmp_path: Path) -> None:
    """Its sandboxes forward without it."""
    (tmp_path / "run").mkdir()
    (tmp_path / "netns/ov-1-2").mkdir(parents=True)
    outcome = overlayd("netcheck", "127.0.0.1", "--json")

    assert outcome.code == 4
    assert ("this host", "agent-dead") in findings(outcome.out)


def test_any_host_can_be_checked(overlayd: Run, agent: FakeAgent) -> None:
    """One that is no member, by the ports of this host's cluster unless others are given."""
    status = {"node": ANSWER, "gossip_port": 19, "vxlan_port": 20}
    agent.answer("GET /v1/status", status)
    agent.answer("GET /v1/members", {"members": []})
    outcome = overlayd("netcheck", "127.0.0.9", "--vxlan-port", "21")

    assert outcome.code == 4
    assert "gossip (19/udp) refused   vxlan (21/udp) refused" in outcome.out


def test_a_name_without_an_address_is_an_error(overlayd: Run) -> None:
    """Nothing is guessed."""
    outcome = overlayd("netcheck", "no.such.host.invalid")

    assert outcome.code == 5
    assert "neither a member nor a host 'no.such.host.invalid'" in outcome.err


def test_a_file_without_a_token_is_refused(overlayd: Run, tmp_path: Path) -> None:
    """Before anything is sent."""
    (tmp_path / "token").write_text("nothing\n")

    assert overlayd("netcheck", "127.0.0.1", "--token-file", str(tmp_path / "token")).code == 2
