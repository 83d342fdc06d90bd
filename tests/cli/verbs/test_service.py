"""service create, ls, inspect, set, ps, rm."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run

WEB: dict[str, Any] = {
    "name": "web", "network": "blue", "ips": ["10.32.0.9", "fd32::9"],
    "ports": [{"port": 80, "target": 8080, "protocol": "tcp", "name": "http"},
              {"port": 53, "target": 53, "protocol": "udp", "name": ""}],
    "selector": {"app": "web"}, "backends": ["c9"], "weights": {}, "drain": [],
    "affinity": "none", "local_first": False, "dns_rr": False,
    "check": {"kind": "http", "argument": "/", "period_s": 2.0, "timeout_s": 0.5, "threshold": 3},
    "publish": [{"port": 8080, "service_port": 80, "protocol": "tcp", "mode": "host",
                 "sources": ["10.0.0.0/16"]}],
    "labels": {"team": "a"}, "ready": 1, "total": 2,
    "backend_list": [
        {"name": "c1", "node": "vm1", "node_state": "alive", "ips": ["10.32.0.2"], "weight": 1,
         "state": "ready"},
        {"name": "c2", "node": "vm2", "node_state": "dead", "ips": ["10.32.64.2"], "weight": 3,
         "state": "lost"},
    ],
}  # fmt: skip


def test_create_sends_what_was_given_only(overlayd: Run, agent: FakeAgent) -> None:
    """The agent's defaults stay the agent's; stdout has the virtual addresses."""
    agent.answer("POST /v1/services", WEB | {"created": True, "warnings": []})
    outcome = overlayd("service", "create", "web", "--network", "blue", "--port", "80")

    assert outcome.out == "10.32.0.9\nfd32::9\n"
    assert agent.asked[-1].body == {
        "name": "web",
        "network": "blue",
        "ips": [],
        "local_first": False,
        "dns_rr": False,
        "ports": [{"port": 80, "target": 80, "protocol": "tcp"}],
    }


def test_create_sends_every_option(overlayd: Run, agent: FakeAgent) -> None:
    """Texts become the fields of the API."""
    agent.answer("POST /v1/services", WEB | {"created": True, "warnings": []})
    overlayd(
        "service", "create", "web", "--network", "blue", "--port", "http=80:8080", "--port",
        "53/udp", "--selector", "app=web", "--backend", "c9", "--weight", "c1=3", "--drain", "c2",
        "--affinity", "client", "--check", "http:/up", "--check-period", "5", "--check-threshold",
        "2", "--publish", "8080:80", "--mode", "host", "--source", "10.0.0.0/16", "--label",
        "team=a", "--local-first", "--ip", "10.32.0.9",
    )  # fmt: skip

    assert agent.asked[-1].body == {
        "name": "web",
        "network": "blue",
        "ips": ["10.32.0.9"],
        "local_first": True,
        "dns_rr": False,
        "ports": [
            {"port": 80, "target": 8080, "protocol": "tcp", "name": "http"},
            {"port": 53, "target": 53, "protocol": "udp"},
        ],
        "selector": {"app": "web"},
        "backends": ["c9"],
        "weights": {"c1": 3},
        "drain": ["c2"],
        "affinity": "client",
        "check": {"kind": "http", "argument": "/up", "period_s": 5.0, "threshold": 2},
        "publish": [
            {
                "port": 8080,
                "service_port": 80,
                "protocol": "tcp",
                "mode": "host",
                "sources": ["10.0.0.0/16"],
            }
        ],
        "labels": {"team": "a"},
    }


def test_none_removes_what_was_there(overlayd: Run, agent: FakeAgent) -> None:
    """Of a list, and of the check."""
    agent.answer("POST /v1/services/web", WEB | {"changed": ["check", "local_first"]})
    outcome = overlayd(
        "service", "set", "web", "--publish", "none", "--selector", "none", "--check", "none"
    )

    assert agent.asked[-1].body == {"publish": [], "selector": {}, "no_check": True}
    assert outcome.err == "web: changed check, local first\n"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("create web --network blue", "no port given"),
        ("create web --network blue --port 0", "--port: invalid port '0'"),
        ("create web --network blue --port http:80", "or with a name and '='"),
        ("create web --network blue --port a=80-90", "a range of ports cannot have one name"),
        ("create web --network blue --port 80 --weight c1=x", "'x' is not a weight"),
        ("create web --network blue --port 80 --check ping", "'ping' is not a check"),
        ("create web --network blue --port 80 --check-period 3", "need a check"),
        ("create web --network blue --port 80 --source 10.0.0.0/8", "without --publish"),
        ("create web --network blue --port 80 --selector app", "'app' is not KEY=VALUE"),
        ("set web", "nothing to change was given"),
        ("set web --publish none --publish 80", "nothing can be given beside it"),
        ("scale web=3", "a service has no number of containers to set"),
    ],
)
def test_wrong_options_are_refused(overlayd: Run, words: str, said: str) -> None:
    """Each with one message, and before the agent is asked."""
    outcome = overlayd("service", *words.split())

    assert outcome.code == 2
    assert said in outcome.err


def test_a_warning_names_the_service(overlayd: Run, agent: FakeAgent) -> None:
    """A service without backends may be meant so."""
    agent.answer("POST /v1/services", WEB | {"created": True, "warnings": ["no container is c9"]})
    outcome = overlayd("service", "create", "web", "--network", "blue", "--port", "80")

    assert outcome.code == 0
    assert "web: no container is c9" in outcome.err


def test_lists_show_ports_as_they_are_typed(overlayd: Run, agent: FakeAgent) -> None:
    """And how many backends are ready."""
    agent.answer("GET /v1/services", {"services": [WEB], "elsewhere": []})

    lines = overlayd("service", "ls").out.splitlines()
    assert lines[1].split() == [
        "web", "blue", "10.32.0.9", "fd32::9", "http=80:8080", "53/udp", "1/2", "8080:80", "(host)",
    ]  # fmt: skip
    assert overlayd("service", "ls", "--quiet").out == "web\n"
    assert overlayd("service", "ls", "--format", "{{.Name}} {{.Ready}}").out == "web 1\n"
    assert overlayd("service", "ls", "--filter", "network=red").out == ""


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, "-"),
        ({"translated_why": None}, "led to a backend as they begin (TCP)"),
        ({"translated_why": "it has affinity"}, "translated: it has affinity"),
        ({"translated_why": None, "ips": []}, "to the backends' own addresses"),
    ],
)
def test_inspect_tells_how_connections_go(
    overlayd: Run, agent: FakeAgent, given: dict[str, Any], shown: str
) -> None:
    """From this host; an agent of before does not say."""
    agent.answer("GET /v1/services/web", WEB | given)
    lines = overlayd("service", "inspect", "web").out.splitlines()

    (line,) = [line for line in lines if line.startswith("Connections")]
    assert line.split(maxsplit=1)[1] == shown


def test_inspect_shows_each_backends_state(overlayd: Run, agent: FakeAgent) -> None:
    """With what chooses them, and the check."""
    agent.answer("GET /v1/services/web", WEB)
    shown = overlayd("service", "inspect", "web").out

    assert "label app=web or named c9" in shown
    assert "http / every 2 s, at most 0.5 s, 3 in a row" in shown
    assert "8080:80 (host)  from 10.0.0.0/16" in shown
    assert overlayd("service", "ps", "web", "--no-header").out.splitlines() == [
        "c1  vm1  10.32.0.2   1  ready",
        "c2  vm2  10.32.64.2  3  lost",
    ]
