"""Commands status, verify, metrics and events."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest
from overlay.cli.screen import terminal
from overlay.cli.verbs import status
from overlay.cli.verbs.status import faults_in, parse_since, status_text
from overlay.client import api
from overlay.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.fake_agent import FakeAgent, Run

DATAPATH = (
    "Datapath  vxlan 4789/udp   192.168.56.12 on eth1   mtu 1500 -> overlay 1450   gossip 7948/udp"
)
NETWORK = (
    "Networks  blue    vni 9000001   10.32.0.0/16   3 endpoints (1 here)   sandbox ok   rows 7/7"
)


@pytest.fixture
def healthy() -> dict[str, Any]:
    """Return the status of a healthy member."""
    return {
        "schema": "overlayd.status/v1",
        "version": "0.1.0",
        "uptime_s": 3725.0,
        "state_dir": "/var/lib/overlayd",
        "config": None,
        "node": {
            "id": "n-8a01beef", "name": "vm2", "epoch": 3, "address": "192.168.56.12",
            "interface": "eth1", "underlay_mtu": 1500,
        },
        "cluster": {
            "id": "7f3a9c21",
            "members": {"alive": 3, "suspect": 0, "dead": 0, "left": 1},
            "partitioned": None,
        },
        "vxlan_port": 4789,
        "gossip_port": 7948,
        "overlay_mtu": 1450,
        "networks": [
            {
                "name": "blue", "vni": 9000001, "subnets": ["10.32.0.0/16"],
                "endpoints_local": 1, "endpoints_total": 3, "sandbox": "ok",
                "rows": {"desired": 7, "actual": 7}, "failures": [],
            },
            {
                "name": "green", "vni": 9000002, "subnets": ["10.33.0.0/16"],
                "endpoints_local": 0, "endpoints_total": 1, "sandbox": "absent",
                "rows": {"desired": 0, "actual": 0}, "failures": [],
            },
        ],
        "drops": {"replayed": 2, "stale": 0},
        "gossip": {"received": 10, "sent": 11, "lag_max_ms": 1.5},
        "health": [],
    }  # fmt: skip


def test_status_is_one_line_per_subject(
    overlayd: Run, agent: FakeAgent, healthy: dict[str, Any]
) -> None:
    """Node, cluster, datapath, networks, drops and health have a line each."""
    agent.answer("GET /v1/status", healthy)

    assert overlayd("status").out.splitlines() == [
        "Node      vm2 (n-8a01beef)   overlayd 0.1.0   up 1h 02m   config defaults",
        "Cluster   7f3a9c21   3 nodes: 3 alive, 1 left",
        DATAPATH,
        NETWORK,
        "          green   vni 9000002   10.33.0.0/16   1 endpoint (0 here)   no sandbox here",
        "Drops     replayed 2",
        "Health    ok",
    ]
    assert json.loads(overlayd("status", "--json").out) == healthy


@pytest.mark.parametrize(
    ("given", "shown"),
    [
        ({}, "rows 7/7"),
        ({"policies": 0, "default_deny": False}, "rows 7/7"),
        ({"policies": 1, "default_deny": False}, "rows 7/7   1 policy"),
        ({"policies": 2, "default_deny": True}, "rows 7/7   2 policies   default deny"),
        ({"isolate_ports": True}, "rows 7/7   isolate ports"),
    ],
)
def test_networks_say_what_decides_on_connections(
    overlayd: Run, agent: FakeAgent, healthy: dict[str, Any], given: dict[str, Any], shown: str
) -> None:
    """Nothing is said of a network without policies, or by an older agent."""
    healthy["networks"][0] |= given
    agent.answer("GET /v1/status", healthy)

    (line,) = [line for line in overlayd("status").out.splitlines() if "blue" in line]
    assert line.endswith(shown)


@pytest.mark.parametrize(
    ("gate", "shown"),
    [
        ({"active": False, "why": None, "ports": None}, "7948/udp"),
        (
            {"active": False, "why": "the host has IPsec policies", "ports": None},
            "   gate off (the host has IPsec policies)",
        ),
        ({"active": True, "why": None}, "gate on"),
        (
            {"active": True, "why": None, "ports": {"first": 16_384, "last": 32_767}},
            "   gate on (ports 16384-32767)",
        ),
    ],
)
def test_a_gate_is_shown_with_its_ports(
    healthy: dict[str, Any], gate: dict[str, Any], shown: str
) -> None:
    """An agent of before tells none; without a gate, the reason is shown."""
    text = status_text({**healthy, "gate": {"mode": "on", **gate}})
    (line,) = [line for line in text.splitlines() if line.startswith("Datapath")]
    assert line.endswith(shown)


@pytest.mark.parametrize(
    ("native", "why", "host", "network"),
    [
        (None, None, "fast path on", ""),
        (("off", "switched off in the configuration"), "switched off", "fast path on", ""),
        (("auto", None), None, "native path on", ""),
        (("auto", None), "it is encrypted", "native path on", "fast path: it is encrypted"),
        (("on", "no eBPF"), "no eBPF", "fast path on   native path off (no eBPF)", ""),
    ],
)
def test_the_path_of_frames_is_shown(
    overlayd: Run,
    agent: FakeAgent,
    healthy: dict[str, Any],
    native: tuple[str, str | None] | None,
    why: str | None,
    host: str,
    network: str,
) -> None:
    """Of the host, and of a network that takes a slower one; nothing where it is switched off."""
    healthy["fast_path"] = {"mode": "auto", "active": True, "why": None}
    if native is not None:
        mode, reason = native
        healthy["native_path"] = {"mode": mode, "active": reason is None, "why": reason}
        reason = reason if mode == "off" else why
        healthy["networks"][0] |= {"data_path": "fast", "data_path_why": reason}
    agent.answer("GET /v1/status", healthy)

    lines = overlayd("status").out.splitlines()
    assert lines[2].endswith(host)
    (line,) = [line for line in lines if "blue" in line]
    assert line.endswith(network)
    assert network or "path" not in line


def test_notices_make_no_status_degraded(
    overlayd: Run, agent: FakeAgent, healthy: dict[str, Any]
) -> None:
    """They are shown with what to do, below the health, and --check passes."""
    healthy["notices"] = [{"text": "the filter was gone: rewritten (9 s ago)", "hint": "Do this"}]
    agent.answer("GET /v1/status", healthy)

    assert overlayd("status").out.splitlines()[-3:] == [
        "Health    ok",
        "Notices   the filter was gone: rewritten (9 s ago)",
        "                next: Do this",
    ]
    assert overlayd("status", "--check").code == 0


def test_many_idle_networks_are_folded(
    overlayd: Run, agent: FakeAgent, healthy: dict[str, Any]
) -> None:
    """They have one line, which names some; --all shows each, and a few are shown anyway."""
    blue, green = healthy["networks"]
    healthy["networks"] = [blue, *({**green, "name": f"green{n}"} for n in range(10))]
    agent.answer("GET /v1/status", healthy)

    shown = overlayd("status").out
    assert "\nNetworks  blue   vni 9000001" in shown
    assert "          10 networks without a container here: green0 green1" in shown
    assert "green7 ...\n" in shown
    assert "vni 9000002" not in shown
    assert overlayd("status", "--all").out.count("vni 9000002") == 10
    healthy["networks"][1]["sandbox"] = "degraded"  # not idle: something is wrong with it
    assert "green0   vni 9000002" in overlayd("status").out


def test_drops_of_a_healthy_start_are_hidden(
    overlayd: Run, agent: FakeAgent, healthy: dict[str, Any]
) -> None:
    """A few of each member's start are usual; many are not, and --all shows all."""
    healthy["drops"] = {"late-response": 2, "no-session": 40, "replayed": 0}
    agent.answer("GET /v1/status", healthy)
    assert "Drops" not in overlayd("status").out
    assert "Drops     late-response 2   no-session 40\n" in overlayd("status", "--all").out

    healthy["drops"] = {"late-response": 2, "no-session": 41, "unauthenticated": 1}
    assert "Drops     no-session 41   unauthenticated 1\n" in overlayd("status").out


def test_status_has_colours_on_a_terminal(
    healthy: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """States and levels are coloured, and long lines wrapped below their subject."""
    healthy["health"] = [{"level": "warn", "text": "vm3 is suspect", "hint": "look there"}]
    healthy["cluster"]["members"]["suspect"] = 1
    healthy["networks"][0]["rows"]["actual"] = 6
    monkeypatch.setattr(terminal, "has_colour", lambda: True)
    monkeypatch.setattr(terminal, "width", lambda: 60)
    shown = status_text(healthy)
    for styled in ("33mWARN", "32m3 alive", "33m1 suspect", "32mok", "31mrows 6/7"):
        assert f"\x1b[{styled}\x1b[0m" in shown, styled
    assert max(map(terminal.visible_length, shown.splitlines())) <= 60


@pytest.mark.parametrize(
    ("holders", "told"),
    [(3, "held by 3 nodes"), (1, "held by 1 node"), (0, "held by none")],
)
def test_status_counts_the_holders_of_the_authority(
    overlayd: Run, agent: FakeAgent, healthy: dict[str, Any], holders: int, told: str
) -> None:
    """An older agent does not say how many there are."""
    healthy["cluster"]["authority_holders"] = holders
    agent.answer("GET /v1/status", healthy)

    assert f"3 alive, 1 left   authority {told}\n" in overlayd("status").out


def test_a_host_without_a_cluster_has_the_next_step(
    overlayd: Run, agent: FakeAgent, healthy: dict[str, Any]
) -> None:
    """Only node, cluster and health are shown."""
    advice = {"level": "warn", "text": "not member of a cluster", "hint": "sudo overlayd join"}
    healthy |= {"node": None, "cluster": None, "networks": [], "drops": {}, "health": [advice]}
    agent.answer("GET /v1/status", healthy)

    assert overlayd("status").out.splitlines() == [
        "Node     (not joined)   overlayd 0.1.0   up 1h 02m   config defaults",
        "Cluster  none",
        "Health   WARN  not member of a cluster",
        "               next: sudo overlayd join",
    ]


def _split(status: dict[str, Any]) -> None:
    status["cluster"]["partitioned"] = {"seen": 1, "total": 3}


def _no_cluster(status: dict[str, Any]) -> None:
    status["cluster"] = None


def _broken_sandbox(status: dict[str, Any]) -> None:
    status["networks"][0]["sandbox"] = "degraded"


def _missing_row(status: dict[str, Any]) -> None:
    status["networks"][0]["rows"]["actual"] = 6


def _suspect(status: dict[str, Any]) -> None:
    status["health"].append({"level": "warn", "text": "vm3 is suspect", "hint": ""})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_split, "partitioned"),
        (_no_cluster, "not in a cluster"),
        (_broken_sandbox, "sandbox is degraded"),
        (_missing_row, "6 of 7 rows"),
        (_suspect, "vm3 is suspect"),
    ],
)
def test_check_exits_with_4_and_prints_the_problem(
    overlayd: Run,
    agent: FakeAgent,
    healthy: dict[str, Any],
    change: Callable[[dict[str, Any]], None],
    said: str,
) -> None:
    """Each kind of problem makes `--check` fail."""
    assert faults_in(healthy) == []
    change(healthy)
    agent.answer("GET /v1/status", healthy)
    outcome = overlayd("status", "--check")

    assert (outcome.code, outcome.out) == (4, "degraded\n")
    assert said in outcome.err


def test_check_of_a_healthy_node_is_ok(
    overlayd: Run, agent: FakeAgent, healthy: dict[str, Any]
) -> None:
    """The output is `ok`, and the exit code 0."""
    agent.answer("GET /v1/status", healthy)
    outcome = overlayd("status", "--check")

    assert (outcome.code, outcome.out, outcome.err) == (0, "ok\n", "")


def test_wait_returns_once_healthy(
    overlayd: Run, agent: FakeAgent, healthy: dict[str, Any]
) -> None:
    """With a healthy node, --wait returns at once."""
    agent.answer("GET /v1/status", healthy)

    assert overlayd("status", "--wait", "--check").code == 0


def test_wait_gives_up_with_7_and_the_reason(overlayd: Run) -> None:
    """Without an agent, --wait times out with that reason."""
    outcome = overlayd("status", "--wait", "--timeout", "0.2")

    assert outcome.code == 7
    assert "no agent runs" in outcome.err


@pytest.mark.parametrize(
    ("differences", "repaired", "code"), [(0, False, 0), (1, False, 4), (1, True, 0)]
)
def test_verify_exits_with_4_if_differences_remain(
    overlayd: Run, agent: FakeAgent, differences: int, repaired: bool, code: int
) -> None:
    """Differences are printed to stdout; repaired ones are not a failure."""
    found = {"network": "blue", "operation": "PutRow", "text": "add fdb row"}
    answer = {"differences": [found] * differences, "repaired": repaired}
    agent.answer("GET /healthz", {"status": "ok", "issues": 0})
    agent.answer("GET /v1/verify", answer)
    outcome = overlayd("verify", *(["--repair"] if repaired else []))

    assert outcome.code == code
    assert outcome.out == "blue: add fdb row\n" * differences
    assert agent.asked[-1].query == ({"repair": ["1"]} if repaired else {})


@pytest.mark.timeout(60)
def test_verify_does_not_wait_with_a_timeout_of_zero(
    overlayd: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It gives up at once, as every other command does, on an agent that does not answer."""
    for module in (api, status):  # without the option
        monkeypatch.setattr(module, "TIMEOUT_S", 3600.0)
        monkeypatch.setattr(module, "LOOK_TIMEOUT_S", 3600.0)
    (tmp_path / "run").mkdir()
    with socket.socket(socket.AF_UNIX) as silent:
        silent.bind(str(tmp_path / "run" / "api.sock"))
        silent.listen()

        assert overlayd("verify", "--timeout", "0").code == 7


def test_events_are_lines(overlayd: Run, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """A line has time, kind, subject and text."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    event = {"time": 1700000000.25, "kind": "attach", "network": "blue", "endpoint": "web",
             "text": "web is 10.32.0.2"}  # fmt: skip
    agent.answer("GET /v1/events", {"events": [event]})

    assert overlayd("events", "--since", "12.5").out == (
        "2023-11-14 22:13:20.250  attach  blue web  web is 10.32.0.2\n"
    )
    assert agent.asked[-1].query == {"since": ["12.5"]}


def test_events_as_json_are_one_object_a_line(overlayd: Run, agent: FakeAgent) -> None:
    """So a program reads them one by one; `--kind` selects."""
    events = [
        {"time": 1.0, "kind": "join", "level": "info", "text": "a"},
        {"time": 2.0, "kind": "kernel", "level": "error", "text": "b"},
    ]
    agent.answer("GET /v1/events", {"schema": "overlayd.events/v1", "events": events})

    lines = overlayd("events", "--json").out.splitlines()
    assert [json.loads(line) for line in lines] == events
    assert json.loads(overlayd("events", "--json", "--kind", "kernel").out) == events[1]
    assert overlayd("events", "--kind", "kernel").out.endswith("kernel  b\n")
    wrong = overlayd("events", "--kind", "kernels")
    assert (wrong.code, "unknown kind 'kernels'" in wrong.err) == (2, True)


def test_follow_prints_events_until_the_agent_exits(overlayd: Run, agent: FakeAgent) -> None:
    """Each event is a line; the end of the stream is exit code 3."""
    events = [{"time": 1.0, "kind": "join", "text": "a"}, {"time": 2.0, "kind": "x", "text": "b"}]
    agent.answer("GET /v1/events", b"".join(json.dumps(e).encode() + b"\n" for e in events))
    outcome = overlayd("events", "--follow", "--json")

    assert [json.loads(line) for line in outcome.out.splitlines()] == events
    assert outcome.code == 3
    assert agent.asked[-1].query["follow"] == ["1"]


@pytest.mark.parametrize(
    ("text", "moment"), [(None, None), ("10m", 400.0), ("1.5s", 998.5), ("12", 12.0)]
)
def test_since_is_an_age_or_a_time(text: str | None, moment: float | None) -> None:
    """A number with a unit is an age."""
    assert parse_since(text, 1000.0) == moment


@pytest.mark.parametrize("text", ["", "m", "yesterday", "5w"])
def test_an_invalid_time_is_a_usage_error(text: str) -> None:
    """Text that is neither an age nor a number is refused."""
    with pytest.raises(UsageError, match="invalid time"):
        parse_since(text, 1000.0)


def test_metrics_prints_those_of_the_agent(agent: FakeAgent, overlayd: Run) -> None:
    """`overlayd metrics` prints what the agent says."""
    agent.answer("GET /metrics", b"overlayd_up 1\n")
    done = overlayd("metrics")
    assert (done.code, done.err) == (0, "")
    assert done.out == "overlayd_up 1\n"
