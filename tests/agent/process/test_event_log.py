"""The event log."""

from __future__ import annotations

from pathlib import Path

import pytest
from overlay import limits
from overlay.agent.process.event_log import EventLog


def test_events_outlive_the_process(tmp_path: Path) -> None:
    """A new event log in the same directory reads the events of the previous one."""
    EventLog(tmp_path).record("attach", "web is 10.0.0.2", network="blue")

    (event,) = EventLog(tmp_path).since(0)

    assert (event["kind"], event["text"], event["network"]) == ("attach", "web is 10.0.0.2", "blue")
    assert event["level"] == "info"


def test_an_incomplete_last_line_is_skipped(tmp_path: Path) -> None:
    """A crash in the middle of a line loses only that line."""
    EventLog(tmp_path).record("one", "whole")
    with (tmp_path / "events.jsonl").open("a") as file:
        file.write('{"time": 1, "ki')

    assert [event["kind"] for event in EventLog(tmp_path).since(0)] == ["one"]


def test_a_damaged_file_is_read_as_far_as_possible(tmp_path: Path) -> None:
    """A power failure may leave any bytes: invalid lines are skipped, events are kept."""
    EventLog(tmp_path).record("one", "whole")
    with (tmp_path / "events.jsonl").open("ab") as file:
        file.write(b'\xff\xfe\x00\n[1]\n{"time": "noon"}\n{"kind": "timeless"}\n')
    EventLog(tmp_path).record("two", "whole")

    assert [event["kind"] for event in EventLog(tmp_path).since(0)] == ["one", "two"]


def test_the_file_stays_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many events, the file holds at most twice the ring."""
    monkeypatch.setattr(limits, "RECENT_EVENTS_MAX", 10)
    event_log = EventLog(tmp_path)
    for number in range(100):
        event_log.record("count", str(number))

    assert len((tmp_path / "events.jsonl").read_text().splitlines()) <= 20
    assert event_log.since(0)[-1]["text"] == "99"


def test_followers_hear_new_events_until_they_stop(tmp_path: Path) -> None:
    """A follower is called for each event, and not after it has stopped."""
    event_log = EventLog(tmp_path)
    heard: list[str] = []
    stop = event_log.follow(lambda event: heard.append(event["text"]))
    event_log.record("x", "first")
    stop()
    event_log.record("x", "second")

    assert heard == ["first"]
