"""`trace`: what it asks, shows and returns."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run


def finding(step: str, outcome: str = "ok", text: str = "as planned", hint: str = "") -> Any:
    """Return a finding."""
    return {"step": step, "outcome": outcome, "text": text, "hint": hint}


def leg(node: str, phase: str, *found: Any, answer: bool = False) -> Any:
    """Return a leg."""
    return {"node": node, "phase": phase, "answer": answer, "findings": list(found)}


def traced(outcome: str = "ok", text: str = "nothing would drop it", hint: str = "") -> Any:
    """Return an answer of the agent."""
    ends = {
        name: {"name": name, "kind": "container", "ip": ip, "mac": "02:00:00:00:00:02",
               "node": node, "node_state": "alive"}
        for name, ip, node in (("web", "10.1.0.2", "vm1"), ("db", "10.1.0.3", "vm2"))
    }  # fmt: skip
    return {
        "schema": "overlayd.trace/v1",
        "network": "blue",
        "source": ends["web"],
        "target": ends["db"],
        "protocol": "tcp",
        "port": 80,
        "legs": [
            leg("vm1", "send", finding("port"), finding("fdb", outcome, text, hint)),
            leg("vm2", "receive", finding("port")),
            leg("vm2", "send", finding("port"), finding("path"), answer=True),
            leg("vm1", "receive", finding("port", "warn", "other settings"), answer=True),
        ],
        "verdict": {"outcome": outcome, "text": text, "hint": hint},
    }


def test_the_steps_of_both_hosts_are_shown(overlayd: Run, agent: FakeAgent) -> None:
    """All of the way there; of the answer's way what is not as planned."""
    agent.answer("GET /v1/trace", traced("drop", "it leads elsewhere", "overlayd verify --repair"))
    done = overlayd("trace", "web", "db", "--dport", "80", "--no-send")

    assert done.out.splitlines() == [
        "web (10.1.0.2) on vm1 to db (10.1.0.3) on vm2, network blue, tcp port 80",
        "",
        "vm1 sends",
        "  ok    port  as planned",
        "  DROP  fdb   it leads elsewhere",
        "",
        "vm2 receives",
        "  ok    port  as planned",
        "",
        "vm2 sends the answer: all 2 steps ok",
        "",
        "vm1 receives the answer",
        "  warn  port  other settings",
        "",
        "verdict  it leads elsewhere",
        "next     overlayd verify --repair",
    ]


@pytest.mark.parametrize(("outcome", "code"), [("ok", 0), ("warn", 0), ("drop", 1), ("unknown", 4)])
def test_the_exit_code_is_the_verdict(
    overlayd: Run, agent: FakeAgent, outcome: str, code: int
) -> None:
    """So that scripts need not read."""
    agent.answer("GET /v1/trace", traced(outcome))

    assert overlayd("trace", "web", "db", "--no-send").code == code


def test_a_source_elsewhere_is_not_tried(overlayd: Run, agent: FakeAgent) -> None:
    """The verdict stands, and the host to run it on is named."""
    agent.answer("GET /v1/trace", traced())
    agent.fail("GET /v1/ping", "not-found", 404)
    done = overlayd("trace", "web", "db", "--json")
    attempt = json.loads(done.out)["attempt"]

    assert done.code == 0
    assert attempt["answered"] is None
    assert attempt["text"] == "not tried: web is on vm1, run the command there"


def test_a_port_is_of_tcp_unless_said(overlayd: Run, agent: FakeAgent) -> None:
    """ICMP without a port."""
    agent.answer("GET /v1/trace", traced())
    overlayd("trace", "web", "db", "--dport", "80", "--no-send")
    overlayd("trace", "web", "db", "--network", "blue", "-6", "--no-send")

    assert [asked.query for asked in agent.asked] == [
        {"source": ["web"], "target": ["db"], "protocol": ["tcp"], "port": ["80"]},
        {"source": ["web"], "target": ["db"], "protocol": ["icmp"], "network": ["blue"],
         "family": ["6"]},
    ]  # fmt: skip


@pytest.mark.parametrize(
    "words",
    [("--dport", "0"), ("--dport", "x"), ("--proto", "icmp", "--dport", "80"), ("-4", "-6")],
)
def test_wrong_options_are_refused(overlayd: Run, agent: FakeAgent, words: tuple[str, ...]) -> None:
    """Before the agent is asked."""
    assert overlayd("trace", "web", "db", *words).code == 2
    assert agent.asked == []
