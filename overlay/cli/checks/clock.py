"""Check of the clock: certificates and tokens are in force by it.

Owns: the question to the kernel (adjtimex(2)). Does not: compare with other hosts' clocks.
"""

from __future__ import annotations

import ctypes
import time
from pathlib import Path
from typing import TYPE_CHECKING

import overlay
from overlay import limits
from overlay.cli import output
from overlay.cli.checks.evidence import Finding

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.cli.checks.evidence import Evidence

_TIMEX_SIZE = 256  # struct timex has 208 bytes or fewer; zeros only ask
_TIME_ERROR = 5  # linux/timex.h: the clock is not synchronized
_BEHIND_S = 60.0  # the kernel stamps files with a clock that is behind by milliseconds
_REMEDY = "timedatectl; sudo timedatectl set-ntp true   (needs systemd-timesyncd, chrony or ntpd)"


def check_clock(evidence: Evidence) -> Iterator[Finding]:
    """Check that no file of overlayd is from the future, and that the clock is synchronized."""
    files = (
        Path(overlay.__file__),
        evidence.state_dir / "state.db",
        evidence.state_dir / "events.jsonl",
    )
    ahead_s, newest = max((_mtime_s(path) - time.time(), path) for path in files)
    if ahead_s > _BEHIND_S:
        yield Finding(
            "error",
            "clock",
            f"this host's clock is behind: {newest} is {output.duration(ahead_s)} in the future",
            f"Certificates and tokens are not in force yet: set the clock: {_REMEDY}",
        )
        return
    synchronized = _is_synchronized()
    if synchronized is False:
        yield Finding(
            "note",
            "clock",
            "nothing synchronizes this host's clock; hosts whose clocks differ by more than "
            f"{limits.CERTIFICATE_EARLY_S // 3600} hours refuse each other",
            _REMEDY,
        )
    else:
        yield Finding("ok", "clock", "synchronized" if synchronized else "not in the past")


def _mtime_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0  # no such file, or for root alone


def _is_synchronized() -> bool | None:
    """Return whether the kernel holds the clock for synchronized; None: it does not say."""
    state = ctypes.CDLL(None).adjtimex(ctypes.create_string_buffer(_TIMEX_SIZE))
    return None if state < 0 else state != _TIME_ERROR
