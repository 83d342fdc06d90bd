"""The command `web`: what it refuses, and what it prints."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from tests.fake_agent import Run

WAIT_S = 60.0  # a loaded machine


@pytest.fixture
def token(tmp_path: Path) -> Path:
    """Return a file with a token that other users cannot read."""
    path = tmp_path / "web.token"
    path.write_text("correct horse battery staple\n")
    path.chmod(0o600)
    return path


def test_another_address_needs_a_token(overlayd: Run) -> None:
    """Other hosts reach it; the hint makes one."""
    outcome = overlayd("web", "--listen", "192.0.2.1:7950")

    assert outcome.code == 2
    assert "needs a token on 192.0.2.1:7950" in outcome.err
    assert "umask 077" in outcome.err
    assert "--token-file" in outcome.err


@pytest.mark.parametrize("listen", ["7950", "localhost:7950", "127.0.0.1:x", "unix:web.sock"])
def test_a_wrong_address_is_refused(overlayd: Run, listen: str) -> None:
    """With what is wrong, and an example."""
    outcome = overlayd("web", "--listen", listen)

    assert outcome.code == 2
    assert listen in outcome.err
    assert "next:" in outcome.err


def test_a_missing_token_file_is_not_found(overlayd: Run, tmp_path: Path) -> None:
    """With how to make one."""
    outcome = overlayd("web", "--token-file", str(tmp_path / "none"))

    assert outcome.code == 5
    assert "/dev/urandom" in outcome.err


@pytest.mark.parametrize("text", ["", "short", "x" * 600])
def test_a_token_has_a_length(overlayd: Run, token: Path, text: str) -> None:
    """So that nobody can guess it; it is not repeated."""
    token.write_text(text)
    outcome = overlayd("web", "--token-file", str(token))

    assert outcome.code == 2
    assert "16 to 512" in outcome.err
    assert not text or text not in outcome.err


def test_a_token_is_one_line(overlayd: Run, token: Path) -> None:
    """As a browser's form and a header have it."""
    token.write_text("correct horse\nbattery staple\n")
    outcome = overlayd("web", "--token-file", str(token))

    assert outcome.code == 2
    assert "more than one line" in outcome.err


def test_a_token_that_others_can_read_is_warned_of(overlayd: Run, token: Path) -> None:
    """The mode is the file's; what follows is another error."""
    token.chmod(0o644)
    outcome = overlayd("web", "--token-file", str(token), "--listen", "192.0.2.77:7950")

    assert f"chmod 600 {token}" in outcome.err
    assert outcome.code == 5


def test_a_port_in_use_is_a_conflict(overlayd: Run) -> None:
    """With how to find its owner."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        outcome = overlayd("web", "--listen", f"127.0.0.1:{other.getsockname()[1]}", "--json")

    assert outcome.code == 6
    assert "ss -lntp" in outcome.err
    assert json.loads(outcome.out)["error"]["code"] == "conflict"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_stopped(tmp_path: Path, number: signal.Signals) -> None:
    """It starts without an agent, says so, and exits with 0; its socket goes with it."""
    path = tmp_path / "web.sock"
    words = ["--run-dir", str(tmp_path / "run"), "web", "--listen", f"unix:{path}", "--json"]
    process = subprocess.Popen(
        [sys.executable, "-m", "overlay.cli.main", *words],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OVERLAYD_CONFIG": str(tmp_path / "none.toml")},
        preexec_fn=_interruptible,  # noqa: PLW1509 - one signal
    )
    assert process.stdout is not None
    announced = json.loads(process.stdout.readline())
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(path))
        client.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
    process.send_signal(number)
    _, err = process.communicate(timeout=WAIT_S)

    assert announced["listen"] == f"unix:{path}"
    assert process.returncode == 0
    assert "the page shows nothing yet: no agent runs on this host" in err
    assert "Traceback" not in err


def _interruptible() -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
