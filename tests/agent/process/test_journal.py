"""The journal's native protocol, on a real datagram socket."""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest
from overlay.agent.process import journal
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.journal import JournalHandler, is_journal, journal_entry


@pytest.fixture
def listener(tmp_path: Path) -> Iterator[socket.socket]:
    """Listen as the journal does."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
        opened.bind(str(tmp_path / "journal"))
        opened.settimeout(5)
        yield opened


@pytest.fixture
def log(tmp_path: Path, listener: socket.socket) -> Iterator[logging.Logger]:
    """Have the agent's logger write to it."""
    assert listener.fileno() > 0
    handler = JournalHandler(tmp_path / "journal")
    found = logging.getLogger("overlayd")
    level = found.level
    found.addHandler(handler)
    found.setLevel(logging.INFO)
    yield found
    found.removeHandler(handler)
    found.setLevel(level)
    handler.close()


def decoded(raw: bytes) -> dict[str, str]:
    """Return the fields of a datagram, read as the protocol defines it."""
    fields = {}
    while raw:
        line, _, rest = raw.partition(b"\n")
        name, equals, value = line.partition(b"=")
        if not equals:
            (size,) = struct.unpack_from("<Q", rest)
            value, rest = rest[8 : 8 + size], rest[8 + size + 1 :]
        fields[name.decode()] = value.decode()
        raw = rest
    return fields


@pytest.mark.usefixtures("log")
def test_an_event_has_its_fields(listener: socket.socket, tmp_path: Path) -> None:
    """So that `journalctl OVERLAYD_KIND=attach` finds it."""
    event_log = EventLog(tmp_path)
    event_log.record("attach", "web is 10.32.0.2", network="blue", endpoint="web")
    event_log.record("kernel", "refused", level=logging.ERROR)
    first, second = decoded(listener.recv(4096)), decoded(listener.recv(4096))

    assert first == {
        "MESSAGE": "overlayd attach: web is 10.32.0.2 [endpoint=web network=blue]",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "overlayd",
        "OVERLAYD_KIND": "attach",
        "OVERLAYD_NETWORK": "blue",
        "OVERLAYD_ENDPOINT": "web",
    }
    assert (second["OVERLAYD_KIND"], second["PRIORITY"]) == ("kernel", "3")


def test_a_traceback_is_one_entry(listener: socket.socket, log: logging.Logger) -> None:
    """A value with line breaks has its length; no line of it can become a field."""
    log.error("a defect", exc_info=ValueError("bad\nPRIORITY=0"))
    entry = decoded(listener.recv(65536))

    assert entry["PRIORITY"] == "3"
    assert entry["MESSAGE"].startswith("overlayd a defect\nValueError: bad")
    assert "PRIORITY=0" in entry["MESSAGE"]
    assert decoded(journal_entry({"A": "x\n", "B": "y"})) == {"A": "x\n", "B": "y"}


def test_what_the_journal_does_not_take_goes_to_stderr(
    tmp_path: Path,
    listener: socket.socket,
    log: logging.Logger,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Too large for a datagram, or no journal; nothing is raised."""
    log.warning("x" * 10_000_000)
    assert "WARNING overlayd xxx" in capsys.readouterr().err
    listener.close()
    (tmp_path / "journal").unlink()
    log.error("afterwards")
    assert "ERROR overlayd afterwards" in capsys.readouterr().err


def test_the_journal_is_used_where_stderr_leads_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that `join` started writes its log file, also in a session of a unit."""
    reading, writing = os.pipe()
    try:
        found = os.fstat(writing)
        assert is_journal(writing, f"{found.st_dev}:{found.st_ino}")
        assert not is_journal(writing, "8:1")
        assert not is_journal(writing, None)
    finally:
        os.close(reading)
        os.close(writing)
    assert not is_journal(writing, "8:1")
    monkeypatch.setenv("JOURNAL_STREAM", "8:1")
    assert not isinstance(journal.log_handler(), JournalHandler)
