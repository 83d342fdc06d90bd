"""An agent that hangs: it accepts connections, and answers nothing. No verb waits for long."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.unix_http import UnixConnection
from tests.cli.test_parser import READING

if TYPE_CHECKING:
    from tests.fake_agent import Run

TOLD = "did not answer in time"
# Each looking verb, and what it says of such an agent.
LOOKING = {
    "status": TOLD, "status --check": TOLD, "status --json": TOLD, "top --json": TOLD,
    "members": TOLD, "verify": TOLD, "events": TOLD, "events --follow": TOLD,
    "metrics": TOLD, "token show": TOLD, "token ls": TOLD, "network ls": TOLD,
    "network inspect blue": TOLD, "endpoint ls": TOLD, "container ls": TOLD, "ipam": TOLD,
    "key status": TOLD, "encryption status": TOLD, "authority ls": TOLD, "dns ls": TOLD,
    "dns lookup web": TOLD, "ping web": TOLD, "trace web db": TOLD, "capture web": TOLD,
    "doctor": TOLD, "graph": TOLD, "netcheck": "the agent on this host does not answer",
    "evpn status": TOLD, "evpn ls": TOLD,
    "service ls": TOLD, "service inspect web": TOLD, "service ps web": TOLD,
    "policy ls": TOLD, "policy inspect db": TOLD, "policy test web db": TOLD,
    "router ls": TOLD, "router inspect r1": TOLD,
}  # fmt: skip
# These do not need it: they ask it beside others, or later, or not at all.
WITHOUT_AGENT = {"version", "config check", "config show", "web", "report", "docker-plugin status"}
CHANGING = [
    "attach web --network blue", "network rm a b", "publish web 80", "status --wait",
    "container add web", "token create", "endpoint set web --name x",
]  # fmt: skip


@pytest.fixture
def waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[float]]:
    """Return how long each connection would wait for an agent that answers nothing."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    seen: list[float] = []
    connect = UnixConnection.connect

    def record(connection: UnixConnection) -> None:
        seen.append(connection.timeout or 0.0)
        connection.timeout = 0.02
        connect(connection)

    monkeypatch.setattr(UnixConnection, "connect", record)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(run_dir / "api.sock"))
        listener.listen(64)
        yield seen


def test_every_looking_verb_is_in_the_table() -> None:
    """A new one must be tried, too."""
    tried = {" ".join(path) for path in READING if any(
        line == " ".join(path) or line.startswith(" ".join(path) + " ") for line in LOOKING
    )}  # fmt: skip
    writing = {"dns add", "dns rm"}  # among those with --json
    assert {" ".join(path) for path in READING} - tried - writing == WITHOUT_AGENT


@pytest.mark.parametrize("line", LOOKING)
def test_a_looking_verb_waits_5_seconds_at_most(
    overlayd: Run, waits: list[float], line: str
) -> None:
    """All its questions together; and it says that the agent hangs."""
    outcome = overlayd(*line.split())

    assert LOOKING[line] in outcome.out + outcome.err
    assert outcome.code != 0
    assert 0 < sum(waits) <= 5.0


@pytest.mark.parametrize("line", LOOKING)
def test_a_looking_verb_waits_as_long_as_it_is_told(
    overlayd: Run, waits: list[float], line: str
) -> None:
    """--timeout holds for all its questions together, before and after the verb."""
    for words in (["--timeout", "2", *line.split()], [*line.split(), "--timeout", "2"]):
        waits.clear()
        outcome = overlayd(*words)

        assert LOOKING[line] in outcome.out + outcome.err
        assert 0 < sum(waits) <= 2.0


@pytest.mark.parametrize("line", CHANGING)
def test_a_changing_verb_waits_as_long_as_it_is_told(
    overlayd: Run, waits: list[float], line: str
) -> None:
    """Its time without --timeout is longer."""
    outcome = overlayd("--timeout", "0.05", *line.split())

    assert outcome.code == 7, outcome.err
    assert TOLD in outcome.err
    assert set(waits) <= {0.05, 0.1}  # 0.1 s: between two looks of a wait
