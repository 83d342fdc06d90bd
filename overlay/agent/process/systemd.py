"""systemd's notification protocol (sd_notify(3)): readiness, status, watchdog."""

from __future__ import annotations

import os
import socket
import time


def notify_systemd(*lines: str) -> bool:
    """Send lines such as `READY=1` to the service manager; return False if there is none."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.connect(address)
            sender.sendall("\n".join(lines).encode())
    except OSError:
        return False
    return True


def reload_message() -> bool:
    """Announce a reload, with the clock value that Type=notify-reload waits for."""
    return notify_systemd("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_interval_s() -> float | None:
    """Return the interval in seconds for WATCHDOG=1, half of the unit's limit, or None."""
    raw = os.environ.get("WATCHDOG_USEC", "")
    return int(raw) / 2e6 if raw.isdigit() and int(raw) else None
