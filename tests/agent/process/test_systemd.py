"""Notifications to systemd, on a real notification socket."""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from overlay.agent import main
from overlay.agent.process import systemd
from overlay.agent.process.config import Config


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Listen as the service manager does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "notify"))
        listener.settimeout(5)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listener


@pytest.fixture
def level() -> Iterator[None]:
    """Put the log level back."""
    before = logging.getLogger().level
    yield
    logging.getLogger().setLevel(before)


@pytest.mark.usefixtures("level")
def test_a_reload_is_announced_and_ended(manager: socket.socket, tmp_path: Path) -> None:
    """RELOADING with the clock that notify-reload compares, then READY; the log level is new."""
    path = tmp_path / "overlayd.toml"
    path.write_text('log_level = "error"\n')
    before = time.monotonic_ns() // 1000
    main._reload(Config(path=path))
    announced = dict(line.split("=") for line in manager.recv(500).decode().splitlines())

    assert announced["RELOADING"] == "1"
    assert before <= int(announced["MONOTONIC_USEC"]) <= time.monotonic_ns() // 1000
    assert manager.recv(500) == b"READY=1"
    assert logging.getLogger().level == logging.ERROR


@pytest.mark.usefixtures("level")
def test_an_invalid_configuration_changes_nothing(
    manager: socket.socket, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The agent keeps its settings, and systemd does not wait for the reload."""
    path = tmp_path / "overlayd.toml"
    path.write_text("log_level = 7\n")
    before = logging.getLogger().level
    main._reload(Config(path=path))
    manager.recv(500)

    assert manager.recv(500) == b"READY=1"
    assert logging.getLogger().level == before
    assert "log_level must be a string" in caplog.text


def test_without_systemd_nothing_is_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """No socket, no message, no error."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)

    assert not systemd.notify_systemd("READY=1")


def test_the_watchdog_is_notified_at_half_the_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    """sd_watchdog_enabled(3) advises half of the interval."""
    monkeypatch.setenv("WATCHDOG_USEC", "30000000")
    assert systemd.watchdog_interval_s() == 15.0

    monkeypatch.setenv("WATCHDOG_USEC", "")
    assert systemd.watchdog_interval_s() is None
