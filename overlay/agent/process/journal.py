"""Write the log to systemd's journal with fields, where the journal would get it anyway.

The native protocol: one datagram for each entry, whose lines are FIELD=value; a value with line
breaks has its length before it (systemd's "Native Journal Protocol"). So `journalctl` filters
events by kind, network, endpoint and peer, and priorities are right.

Owns: whether stderr is the journal's (JOURNAL_STREAM of systemd.exec(5)), and the encoding.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import struct
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

SOCKET: Final = Path("/run/systemd/journal/socket")
EVENT_FIELDS: Final = "event_fields"  # the attribute of a log record that holds an event's fields
_IDENTIFIER: Final = "overlayd"
_PRIORITIES: Final = {  # sd-daemon(3)
    logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2,
}  # fmt: skip


class JournalHandler(logging.Handler):
    """Sends each log record to the journal; what it does not take goes to stderr."""

    def __init__(self, path: Path = SOCKET) -> None:
        super().__init__()
        self.setFormatter(logging.Formatter("%(name)s %(message)s"))
        self._path = str(path)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one record."""
        text = self.format(record)
        fields = {
            "MESSAGE": text,
            "PRIORITY": str(_PRIORITIES.get(record.levelno, 6)),
            "SYSLOG_IDENTIFIER": _IDENTIFIER,
        }
        for name, value in getattr(record, EVENT_FIELDS, {}).items():
            fields[f"OVERLAYD_{name.upper()}"] = str(value)
        try:
            self._socket.sendto(journal_entry(fields), self._path)
        except OSError:  # it is too large, or the journal is full or restarts
            with contextlib.suppress(OSError):
                sys.stderr.write(f"{record.levelname} {text}\n")
                sys.stderr.flush()

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()


def journal_entry(fields: Mapping[str, str]) -> bytes:
    """Return the datagram of one entry."""
    parts = []
    for name, text in fields.items():
        value = text.encode(errors="replace")
        if b"\n" in value:
            parts.append(name.encode() + b"\n" + struct.pack("<Q", len(value)) + value + b"\n")
        else:
            parts.append(name.encode() + b"=" + value + b"\n")
    return b"".join(parts)


def is_journal(descriptor: int, stream: str | None) -> bool:
    """Return whether a descriptor leads to the journal; `stream` is $JOURNAL_STREAM."""
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return stream == f"{found.st_dev}:{found.st_ino}"


def log_handler() -> logging.Handler:
    """Return the handler of this process: the journal's, or one that writes to stderr."""
    if is_journal(2, os.environ.get("JOURNAL_STREAM")) and SOCKET.exists():
        return JournalHandler()
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    return handler
