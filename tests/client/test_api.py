"""The client of the agent's API."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from overlay.client.api import ApiClient
from overlay.client.paths import Paths
from overlay.errors import (
    AgentNotRunningError,
    ForbiddenError,
    OverlayError,
    TimedOutError,
    UsageError,
)

if TYPE_CHECKING:
    from tests.fake_agent import FakeAgent, Run


def _client(run_dir: Path, timeout_s: float = 5.0) -> ApiClient:
    return ApiClient(Paths(run_dir, run_dir, run_dir / "none.toml", ()), timeout_s)


def _serve_once(path: Path, serve: Callable[[socket.socket], object]) -> threading.Thread:
    """Accept one connection on a socket and pass it to `serve`."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()

    def run() -> None:
        with listener:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65536)
                serve(connection)

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def test_a_request_that_is_too_large_is_not_sent(agent: FakeAgent) -> None:
    """The client enforces the agent's limit on bodies."""
    with pytest.raises(UsageError, match="too large"):
        _client(agent.run_dir).post("/v1/join", {"peers": ["x" * 70_000]})
    assert agent.asked == []


def test_a_look_goes_without_a_check_where_it_is_unknown(agent: FakeAgent) -> None:
    """An agent of before refuses the parameter: during an upgrade it answers all the same."""
    agent.fail("GET /v1/status", "usage", 400)
    with pytest.raises(UsageError):
        _client(agent.run_dir, 1.0).look("/v1/status")
    assert [each.query for each in agent.asked] == [{"wait_ms": ["500"]}, {}]


def test_an_agent_that_hangs_times_out(tmp_path: Path) -> None:
    """A silent agent causes an error after the timeout."""
    done = threading.Event()
    thread = _serve_once(tmp_path / "api.sock", lambda _: done.wait(10))
    with pytest.raises(TimedOutError):
        _client(tmp_path, timeout_s=0.1).get("/v1/status")
    done.set()
    thread.join()


def test_an_incomplete_answer_is_an_error(tmp_path: Path) -> None:
    """An agent that dies while answering is reported as not running."""
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n{"
    thread = _serve_once(tmp_path / "api.sock", lambda connection: connection.sendall(head))
    with pytest.raises(AgentNotRunningError, match="closed the connection"):
        _client(tmp_path).get("/v1/status")
    thread.join()


def test_a_stream_is_read_to_its_end(tmp_path: Path) -> None:
    """The stream ends when the agent closes the connection."""
    answer = b'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{"a": 1}\n\n{"a": 2}\n'
    thread = _serve_once(tmp_path / "api.sock", lambda connection: connection.sendall(answer))

    assert list(_client(tmp_path).stream("/v1/events", follow=1)) == [{"a": 1}, {"a": 2}]
    thread.join()


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (PermissionError(13, "Permission denied"), ForbiddenError),
        (TimeoutError(), TimedOutError),
        (BlockingIOError(11, "Resource temporarily unavailable"), TimedOutError),
        (OSError(5, "Input/output error"), OverlayError),
    ],
)
def test_each_failure_to_connect_has_its_kind(
    tmp_path: Path, error: OSError, kind: type[OverlayError]
) -> None:
    """Permission, timeout and other failures raise different errors."""
    assert type(_client(tmp_path)._failed(error, 5.0)) is kind


def test_answers_returns_whether_an_agent_listens(agent: FakeAgent, tmp_path: Path) -> None:
    """True with a listener, False without a socket."""
    assert _client(agent.run_dir).answers()
    assert not _client(tmp_path).answers()


def test_arguments_that_are_not_utf8_reach_the_agent(overlayd: Run, agent: FakeAgent) -> None:
    """The bytes are quoted in path and query; the agent reports an unknown name."""
    agent.answer("GET /v1/endpoints", {"schema": "overlayd.endpoint-ls/v1", "endpoints": []})
    inspected = overlayd("network", "inspect", "\udcff")
    listed = overlayd("endpoint", "ls", "--network", "\udcff")

    assert agent.asked[0].line == "GET /v1/networks/%FF"
    assert inspected.code != 0
    assert "Traceback" not in inspected.err
    assert (listed.code, len(agent.asked)) == (0, 2)
