"""Named points at which a test ends this process, as a power cut would, or stops it.

They are before each write to disk and before each kernel operation that changes something. Owns:
the switch and the counting. A test starts the agent with OVERLAYD_CRASH_PLAN naming a file, and
writes one line into it when it wants to:

    trace        append the name of each point passed to FILE.passed
    NAME:N       os._exit at the N-th pass of the point NAME from now on, and log it there
    *:N          the same, at the N-th pass of any point
    stop NAME:N  SIGSTOP instead, so that the test can change something before the process goes on

Without the variable a point costs one comparison.
"""

from __future__ import annotations

import collections
import os
import signal
import threading
from pathlib import Path
from typing import Final

VARIABLE: Final = "OVERLAYD_CRASH_PLAN"
EXIT_CODE: Final = 113  # distinguishes a planned exit from any other

_FILE: Final = os.environ.get(VARIABLE)


class _Plan:
    """The plan in the file, and the passes of each point since it was written."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._passed = path.with_name(path.name + ".passed")
        # points are passed in the event loop and in the kernel thread
        self._lock = threading.Lock()
        self._line = ""
        self._counts: collections.Counter[str] = collections.Counter()

    def pass_by(self, name: str) -> None:
        """Count a pass, and end the process if it is the planned one."""
        with self._lock:
            try:
                line = self._path.read_text(encoding="ascii").strip()
            except OSError:
                line = ""
            if line != self._line:
                self._line = line
                self._counts.clear()
            if not line:
                return
            self._counts.update((name, "*"))
            action, _, point = line.rpartition(" ")
            wanted, _, number = point.rpartition(":")
            due = wanted in (name, "*") and self._counts[wanted] == int(number)
            if line == "trace" or due:
                with self._passed.open("a", encoding="ascii") as file:
                    file.write(f"{name}\n")
            if due and action == "stop":
                os.kill(os.getpid(), signal.SIGSTOP)
            elif due:
                os._exit(EXIT_CODE)


_PLAN: Final = None if _FILE is None else _Plan(Path(_FILE))


def failpoint(name: str) -> None:
    """Pass a point; `name` has the form `part.step`, as in `state.commit`."""
    if _PLAN is not None:
        _PLAN.pass_by(name)
