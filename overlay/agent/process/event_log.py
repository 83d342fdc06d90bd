"""The event log: each event goes to the log and to a bounded ring that `overlayd events` shows.

Field names are fixed: time, kind (`event_kinds`), level, network, endpoint, peer, text. The ring is
written through to a file of bounded size, so that it survives a crash.
"""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Any

from overlay import failpoint, limits
from overlay.agent.process.journal import EVENT_FIELDS

_LOG = logging.getLogger("overlayd")
_LEVELS = {logging.WARNING: "warning", logging.ERROR: "error"}  # all others: info
_FILE_NAME = "events.jsonl"


class EventLog:
    """The ring of recent events. A lost line is never an error."""

    def __init__(self, directory: Path) -> None:
        self._path = directory / _FILE_NAME
        self._ring: deque[dict[str, Any]] = deque(maxlen=limits.RECENT_EVENTS_MAX)
        self._followers: list[Callable[[dict[str, Any]], None]] = []
        self._lines = 0
        self._torn = False  # whether the file's last line is incomplete
        self._read()

    def _read(self) -> None:
        # A crash may cut the last line off, and a power failure may leave arbitrary bytes.
        opened = functools.partial(self._path.open, encoding="utf-8", errors="replace")
        with contextlib.suppress(OSError), opened() as file:
            line = "\n"
            for line in file:
                self._lines += 1
                with contextlib.suppress(ValueError):
                    event = json.loads(line)
                    if isinstance(event, dict) and isinstance(event.get("time"), int | float):
                        self._ring.append(event)
            self._torn = not line.endswith("\n")

    def record(self, kind: str, text: str, *, level: int = logging.INFO, **fields: Any) -> None:
        """Record one event; `fields` are network, endpoint, peer and the like."""
        shown = " ".join(f"{key}={value}" for key, value in sorted(fields.items()))
        extra = {EVENT_FIELDS: {"kind": kind, **fields}}
        _LOG.log(level, "%s: %s%s", kind, text, f" [{shown}]" if shown else "", extra=extra)
        shown_level = _LEVELS.get(level, "info")
        event = {"time": time.time(), "kind": kind, "level": shown_level, "text": text, **fields}
        self._ring.append(event)
        for follower in list(self._followers):
            follower(event)
        failpoint.failpoint("journal.write")
        try:
            self._write(event)
        except OSError:
            self._torn = True  # a full disk may have accepted half of it

    def _write(self, event: dict[str, Any]) -> None:
        if self._lines >= 2 * limits.RECENT_EVENTS_MAX:
            replacement = self._path.with_suffix(".new")
            with replacement.open("w", encoding="utf-8") as file:
                file.writelines(json.dumps(kept) + "\n" for kept in self._ring)
            replacement.replace(self._path)
            self._lines = len(self._ring)
            return
        with self._path.open("a", encoding="utf-8") as file:
            # Start a new line, so that an incomplete one does not spoil this one.
            file.write(("\n" if self._torn else "") + json.dumps(event) + "\n")
        self._torn = False
        self._lines += 1

    def since(self, moment: float) -> list[dict[str, Any]]:
        """Return the recorded events at or after `moment`, in Unix seconds."""
        return [event for event in self._ring if event["time"] >= moment]

    def last(self, kind: str) -> dict[str, Any] | None:
        """Return the latest event of a kind, or None."""
        return next((event for event in reversed(self._ring) if event.get("kind") == kind), None)

    def follow(self, follower: Callable[[dict[str, Any]], None]) -> Callable[[], None]:
        """Call `follower` with each new event until the returned function is called."""
        self._followers.append(follower)
        return lambda: self._followers.remove(follower)
