"""The start of wireguard-go."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import pytest
from overlay import limits
from overlay.errors import OverlayError
from overlay.kernel.wireguard import leftovers, process, uapi

BUSY = "ERROR: (wg-x) 2026/01/01 00:00:00 Failed to create TUN device: device or resource busy"


def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, message: str, failures: int) -> Path:
    """Install a program in place of wireguard-go that fails some times; return its log."""
    log, path = tmp_path / "log", tmp_path / "wireguard-go"
    path.write_text(
        f"#!/bin/sh\necho started >>{log}\n"
        f"[ $(wc -l <{log}) -gt {failures} ] && exit 0\necho '{message}'\nexit 1\n"
    )
    path.chmod(0o755)
    monkeypatch.setattr(process, "program", lambda: str(path))
    monkeypatch.setattr(process, "uses_unit", lambda: False)
    monkeypatch.setattr(uapi, "read", lambda _name: None)
    return log


def test_a_busy_device_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Right after a kill; the caller does not notice."""
    log = program(tmp_path, monkeypatch, BUSY, 2)
    process.start("wg-x")
    assert log.read_text() == "started\n" * 3


def test_the_process_before_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It ends with its device, and unlinks the socket of that name, whosever that is by then."""
    log = program(tmp_path, monkeypatch, "", 0)
    monkeypatch.setattr(uapi, "SOCKETS", tmp_path)
    path = uapi.socket_path("wg-x")
    former = socket.create_server(str(path), family=socket.AF_UNIX)

    def end(_pause_s: float) -> None:  # subprocess waits by this function, too
        if path.exists():
            assert not log.exists()
            path.unlink()
            former.close()

    monkeypatch.setattr(time, "sleep", end)
    process.start("wg-x")
    assert log.read_text() == "started\n"


def test_another_error_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the program's own words, after one try."""
    log = program(tmp_path, monkeypatch, "no TUN here", 1)
    with pytest.raises(OverlayError, match="no TUN here"):
        process.start("wg-x")
    assert log.read_text() == "started\n"


def test_a_start_that_hangs_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The agent goes on, and tries again."""
    program(tmp_path, monkeypatch, "", 0).with_name("wireguard-go").write_text(
        "#!/bin/sh\nexec sleep 60\n"
    )
    monkeypatch.setattr(limits, "WIREGUARD_START_S", 0.2)
    with pytest.raises(OverlayError, match="wireguard-go did not return within"):
        process.start("wg-x")


def test_a_unit_has_the_mark(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """By which the process is found when it hangs."""
    commands: list[list[str]] = []
    program(tmp_path, monkeypatch, "", 0)
    monkeypatch.setattr(process, "uses_unit", lambda: True)

    def run(command: list[str], _name: str) -> str:
        commands.append(command)
        return ""

    monkeypatch.setattr(process, "_run", run)
    process.start("wg-x")
    assert f"--setenv={leftovers.MARK}=wg-x" in commands[0]
    assert commands[0][-2:] == ["--foreground", "wg-x"]
