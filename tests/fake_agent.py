"""A fake agent on a UNIX socket, and a fixture that runs command lines against it."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from overlay.cli.main import main


@dataclass(frozen=True)
class Asked:
    """One request as the agent received it."""

    line: str  # such as `GET /v1/networks/blue`
    query: dict[str, list[str]]
    body: Any


@dataclass
class FakeAgent:
    """Gives prepared answers, refuses other requests, and records all of them."""

    run_dir: Path
    answers: dict[str, tuple[int, Any]] = field(default_factory=dict)
    asked: list[Asked] = field(default_factory=list)
    last: str = ""  # the request after which it removes its socket

    def answer(self, line: str, body: Any, status: int = 200) -> None:
        """Answer requests such as `GET /v1/status` with `body`; bytes are sent unchanged."""
        self.answers[line] = (status, body)

    def fail(self, line: str, code: str, status: int, **said: str) -> None:
        """Answer with an error."""
        error = {"code": code, "what": "it failed", "why": "", "hint": ""} | said
        self.answers[line] = (status, {"error": error})


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True
    agent: FakeAgent


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _serve(self) -> None:
        assert isinstance(self.server, _Server)
        agent = self.server.agent
        url = urlsplit(self.path)
        size = int(self.headers.get("Content-Length") or 0)
        raw = self.rfile.read(size)
        line = f"{self.command} {url.path}"
        agent.asked.append(Asked(line, parse_qs(url.query), json.loads(raw) if raw else None))
        if line == agent.last:
            (agent.run_dir / "api.sock").unlink()
        error = {"code": "not-found", "what": f"no {line}", "why": "", "hint": ""}
        status, body = agent.answers.get(line, (404, {"error": error}))
        answer = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_DELETE = _serve  # noqa: N815  http.server's names

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as inherited
        """Log nothing."""


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[FakeAgent]:
    """Run a fake agent for one test."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    fake = FakeAgent(run_dir)
    server = _Server(str(run_dir / "api.sock"), _Handler)
    server.agent = fake
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass(frozen=True)
class Outcome:
    """Exit code and output of a command line."""

    code: int
    out: str
    err: str


Run = Callable[..., Outcome]


@pytest.fixture
def overlayd(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> Run:
    """Run a command line in this process against the fake agent's run directory."""
    monkeypatch.delenv("OVERLAYD_TOKEN", raising=False)
    monkeypatch.setenv("OVERLAYD_RUN_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("OVERLAYD_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("OVERLAYD_CONFIG", str(tmp_path / "overlayd.toml"))

    def run(*words: str) -> Outcome:
        capsys.readouterr()
        code = main(words)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


@pytest.fixture
def attached() -> dict[str, Any]:
    """Return one endpoint as in the answer to an attach."""
    return {
        "network": "blue",
        "ip": "10.32.0.2",
        "ips": ["10.32.0.2"],
        "mac": "02:4f:0a:20:00:02",
        "ifname": "eth0",
        "name": "web",
        "created": True,
        "changed": [],
    }
