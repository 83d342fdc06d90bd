"""`ping`: what it asks, shows and returns; real packets are in tests/e2e/test_ping_and_trace.py."""

from __future__ import annotations

import json
import time
from typing import TYPE_CHECKING, Any

import pytest
from overlay.kernel.icmp_echo import EchoAnswer

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run

FOUND: dict[str, Any] = {
    "schema": "overlayd.ping/v1",
    "network": "blue",
    "source": {"name": "web", "kind": "container", "ip": "10.32.0.2", "mac": "02:00:00:00:00:02",
               "node": "vm1", "node_state": "alive"},
    "target": {"name": "db", "kind": "container", "ip": "10.32.128.2", "mac": "02:00:00:00:00:03",
               "node": "vm2", "node_state": "alive"},
    "namespace": {"path": None, "device": None, "inode": None},
    "way": {"kind": "bridge", "routed": False, "vni": 9000001, "local_vtep": "192.168.56.11",
            "peer_vtep": "192.168.56.12", "mtu": 1450, "fits": 1400,
            "probed": {"sending": "ok", "receiving": "ok", "size_carried": 1450}},
}  # fmt: skip


class FakeEcho:
    """A socket that answers as it is told; None: no answer."""

    answers: list[EchoAnswer | type[KeyboardInterrupt] | None]

    def __init__(self, *_opened_with: object) -> None:
        pass

    def send(self, sequence: int) -> str:
        """Send nothing."""
        self.sequence = sequence
        return ""

    def wait(self, until: float) -> EchoAnswer | None:
        """Return the next answer, at once."""
        if not self.answers:
            time.sleep(max(0.0, until - time.monotonic()))
            return None
        answer = self.answers.pop(0)
        if answer is KeyboardInterrupt:
            raise KeyboardInterrupt
        assert not isinstance(answer, type)
        return answer

    def close(self) -> None:
        """Close nothing."""


@pytest.fixture
def echo(monkeypatch: pytest.MonkeyPatch, agent: FakeAgent) -> type[FakeEcho]:
    """Answer without packets, as root."""
    agent.answer("GET /v1/ping", FOUND)
    monkeypatch.setattr("overlay.kernel.icmp_echo.IcmpEcho", FakeEcho)
    monkeypatch.setattr("os.geteuid", lambda: 0)
    FakeEcho.answers = []
    return FakeEcho


def test_each_answer_is_shown_and_summed_up(overlayd: Run, echo: type[FakeEcho]) -> None:
    """The way first, one line for each request, then the figures."""
    echo.answers = [EchoAnswer(1, 0.0005), None, EchoAnswer(2, 0.0015), None]
    done = overlayd("ping", "db", "-c", "2", "-i", "0.01")

    assert done.code == 0
    assert done.out.splitlines() == [
        "web (10.32.0.2) on vm1 to db (10.32.128.2) on vm2, network blue",
        (
            "way   VXLAN 192.168.56.11 to 192.168.56.12, VNI 9000001, through the bridge, "
            "packets up to 1400 bytes fit"
        ),
        "1     0.500 ms",
        "2     1.500 ms",
        "2 sent, 2 answered, 0 % lost; min 0.500, average 1.000, max 1.500 ms",
    ]


def test_no_answer_at_all_is_a_failure(overlayd: Run, echo: type[FakeEcho]) -> None:
    """Exit code 1, and what to do next; an ICMP error is no answer."""
    echo.answers = [None, None, EchoAnswer(2, 0.1, "unreachable (says 10.32.0.1)")]
    done = overlayd("ping", "db", "-c", "2", "-i", "0.01", "-W", "0.01")

    assert done.code == 1
    assert "1     no answer within 0.01 s" in done.out
    assert "2     unreachable (says 10.32.0.1)" in done.out
    assert "2 sent, 0 answered, 100 % lost" in done.out
    assert "next:" in done.err


def test_a_late_answer_is_counted_as_its_own(overlayd: Run, echo: type[FakeEcho]) -> None:
    """It has the number of its request."""
    echo.answers = [None, None, EchoAnswer(1, 1.2), EchoAnswer(2, 0.001)]
    done = overlayd("ping", "db", "-c", "2", "-i", "0.01", "-W", "0.01")

    assert done.out.splitlines()[2:5] == [
        "1     no answer within 0.01 s", "1     1200.000 ms", "2     1.000 ms"
    ]  # fmt: skip


def test_an_interrupt_shows_the_summary(overlayd: Run, echo: type[FakeEcho]) -> None:
    """Ctrl-C ends a ping without a count."""
    echo.answers = [EchoAnswer(1, 0.001), KeyboardInterrupt]
    done = overlayd("ping", "db")

    assert done.code == 0
    assert "1 sent, 1 answered" in done.out


def test_json_is_one_object_a_line(overlayd: Run, echo: type[FakeEcho]) -> None:
    """The way, each request, and the summary."""
    echo.answers = [EchoAnswer(1, 0.0005)]
    lines = [json.loads(line) for line in overlayd("ping", "db", "-c1", "--json").out.splitlines()]

    assert lines == [
        FOUND,
        {"schema": "overlayd.ping-echo/v1", "sequence": 1, "ms": 0.5, "problem": None},
        {"schema": "overlayd.ping-summary/v1", "sent": 1, "answered": 1, "min_ms": 0.5,
         "average_ms": 0.5, "max_ms": 0.5},
    ]  # fmt: skip


def test_an_error_is_one_json_line_too(overlayd: Run, agent: FakeAgent) -> None:
    """As in every stream."""
    agent.fail("GET /v1/ping", "not-found", 404)
    done = overlayd("ping", "nobody", "--json")

    assert done.code == 5
    assert json.loads(done.out.strip())["schema"] == "overlayd.error/v1"
    assert len(done.out.splitlines()) == 1


def test_the_options_reach_the_agent(overlayd: Run, agent: FakeAgent) -> None:
    """--from, --network and the version of IP."""
    agent.answer("GET /v1/ping", FOUND)
    overlayd("ping", "db", "--from", "web", "--network", "blue", "-4", "-c", "0")

    assert agent.asked[-1].query == {
        "target": ["db"], "source": ["web"], "network": ["blue"], "family": ["4"]
    }  # fmt: skip


def test_only_root_sends(overlayd: Run, agent: FakeAgent, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others may look at the way."""
    agent.answer("GET /v1/ping", FOUND)
    monkeypatch.setattr("os.geteuid", lambda: 1000)

    assert overlayd("ping", "db", "-c", "0").code == 0
    denied = overlayd("ping", "db")
    assert denied.code == 1
    assert "only root may send" in denied.err
    assert "-c 0" in denied.err


def test_a_path_that_loses_is_noted(overlayd: Run, agent: FakeAgent) -> None:
    """Before any request is sent."""
    probed = {"sending": "lost", "receiving": "lost", "size_carried": None}
    target = {**FOUND["target"], "node_state": "dead"}
    agent.answer(
        "GET /v1/ping", {**FOUND, "target": target, "way": {**FOUND["way"], "probed": probed}}
    )
    said = overlayd("ping", "db", "-c", "0").out

    assert "the agent of vm2 is dead" in said
    assert "probes to vm2 do not arrive" in said
    assert "probes from vm2 do not arrive here" in said


@pytest.mark.parametrize(
    "words", [("-c", "x"), ("-c", "-1"), ("-i", "0"), ("-W", "nan"), ("-s", "65500"), ("-4", "-6")]
)
def test_wrong_numbers_are_refused(overlayd: Run, agent: FakeAgent, words: tuple[str, ...]) -> None:
    """Before the agent is asked."""
    assert overlayd("ping", "db", *words).code == 2
    assert agent.asked == []
