"""The verbs on policies send their requests, print the answers, and have the right exit codes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run

DB: dict[str, Any] = {
    "schema": "overlayd.policy-create/v1", "name": "db", "network": "blue", "action": "allow",
    "from": [], "to": ["name=db1"], "ports": ["5432/tcp"], "log": True, "labels": {},
    "created": True, "notes": [],
}  # fmt: skip
TESTED: dict[str, Any] = {
    "schema": "overlayd.policy-test/v1", "network": "blue", "default": "deny",
    "source": {"name": "web1", "ip": "10.0.0.2"}, "target": {"name": None, "ip": "1.1.1.1"},
    "protocol": "tcp", "port": 443, "allowed": True, "basis": "policy", "policy": "out",
}  # fmt: skip
BY_DEFAULT = "no policy is about it, and the network's default is to deny"
ENDS = "web1 (10.0.0.2) to 1.1.1.1"


def test_create_sends_what_was_typed(overlayd: Run, agent: FakeAgent) -> None:
    """And says it in a line; notes go to stderr, as they are no errors."""
    agent.answer("POST /v1/policies", DB | {"created": False, "notes": ["changes nothing"]})
    outcome = overlayd(
        "policy", "create", "db", "--network", "blue", "--deny", "--to", "name=db1", "--to", "host",
        "--port", "5432/tcp", "--log",
    )  # fmt: skip

    assert agent.asked[-1].body == {
        "name": "db", "network": "blue", "action": "deny", "to": ["name=db1", "host"],
        "ports": ["5432/tcp"], "log": True,
    }  # fmt: skip
    assert outcome.code == 0
    assert outcome.out == "db  blue  allow any to name=db1, 5432/tcp, log\n"
    assert "existed already" in outcome.err
    assert "db: changes nothing" in outcome.err


def test_none_removes_peers_and_ports(overlayd: Run, agent: FakeAgent) -> None:
    """Options that are not given are not sent."""
    agent.answer("POST /v1/policies/db", DB | {"changed": ["from"]})
    overlayd("policy", "set", "db", "--from", "none", "--port", "none", "--log", "off")

    assert agent.asked[-1].body == {"from": [], "ports": [], "log": False}
    assert overlayd("policy", "set", "db").code == 2


def test_a_new_policy_is_not_about_all_by_the_word_none(overlayd: Run, agent: FakeAgent) -> None:
    """The agent refuses it: it is no peer."""
    agent.answer("POST /v1/policies", DB)
    overlayd("policy", "create", "db", "--network", "blue", "--from", "none")

    assert agent.asked[-1].body["from"] == ["none"]


@pytest.mark.parametrize(
    ("changes", "code", "text"),
    [
        ({}, 0, f"allowed  {ENDS}, 443/tcp, network blue: policy out\n"),
        (
            {"allowed": False, "basis": "default", "protocol": "icmp", "port": None},
            9,
            f"denied  {ENDS}, icmp, network blue: {BY_DEFAULT}\n",
        ),
        ({"basis": "always", "policy": None}, 0,
         f"allowed  {ENDS}, 443/tcp, network blue: a gateway always answers it\n"),
    ],
)  # fmt: skip
def test_the_exit_code_says_whether_it_is_allowed(
    overlayd: Run, agent: FakeAgent, changes: dict[str, Any], code: int, text: str
) -> None:
    """Also with --json."""
    agent.answer("GET /v1/policy/test", TESTED | changes)
    outcome = overlayd("policy", "test", "web1", "1.1.1.1", "--port", "443/tcp")

    assert (outcome.code, outcome.out) == (code, text)
    assert overlayd("policy", "test", "web1", "1.1.1.1", "--json").code == code
