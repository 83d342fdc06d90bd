"""Refresh an answer every second until Ctrl-C.

On a terminal each answer replaces the one before, without flicker and cut to its height; an agent
that is away for a while is waited for. In a pipe the answers follow one another, each JSON object
on one line, and an error ends them.

Owns: the interval and how the screen is redrawn. Does not: know what is shown.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
import time
from typing import TYPE_CHECKING

from overlay.cli.screen import terminal
from overlay.errors import AgentNotRunningError, TimedOutError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

INTERVAL_S = 1.0
_HOME, _CLEAR_LINE, _CLEAR_BELOW = "\x1b[H", "\x1b[K", "\x1b[J"


class _Captured(io.StringIO):
    """Text on its way to stdout, which says of itself what stdout says."""

    def __init__(self, is_terminal: bool) -> None:
        super().__init__()
        self._is_terminal = is_terminal

    def isatty(self) -> bool:
        """Return whether stdout is a terminal."""
        return self._is_terminal


def watch(show: Callable[[], object], *, as_json: bool = False) -> int:
    """Call `show`, which prints an answer, every second. Returns 0 after Ctrl-C."""
    is_screen = terminal.can_redraw() and not as_json
    told = ""
    has_shown = False
    try:
        while True:
            try:
                answer, notes = _answer_of(show)
            except (AgentNotRunningError, TimedOutError) as error:
                if not (is_screen and has_shown):
                    raise
                answer, notes = f"{error.report()}\n", ""
            has_shown = True
            if is_screen:
                draw((answer + notes).splitlines())
            else:
                sys.stdout.write(f"{json.dumps(json.loads(answer))}\n" if as_json else answer)
                if notes != told:
                    sys.stderr.write(notes)
                told = notes
            sys.stdout.flush()
            time.sleep(INTERVAL_S)
    except KeyboardInterrupt:
        return 0


def _answer_of(show: Callable[[], object]) -> tuple[str, str]:
    """Return what `show` prints to stdout and to stderr."""
    answer, notes = _Captured(sys.stdout.isatty()), io.StringIO()
    with contextlib.redirect_stdout(answer), contextlib.redirect_stderr(notes):
        show()
    return answer.getvalue(), notes.getvalue()


def draw(lines: Sequence[str]) -> None:
    """Show lines in place of the whole screen; what does not fit is counted."""
    room = terminal.height() - 1  # the cursor needs the last line
    width = terminal.width() or sys.maxsize
    shown: list[str] = []
    taken = 0
    for number, line in enumerate(lines):
        taken += max(1, -(-terminal.visible_length(line) // width))  # a wide one takes several
        left = len(lines) - number
        if taken > room - (left > 1):
            shown.append(f"... {left} more line{'' if left == 1 else 's'}")
            break
        shown.append(line)
    text = "".join(f"{line}{_CLEAR_LINE}\n" for line in shown)
    sys.stdout.write(_HOME + text + _CLEAR_BELOW)
    sys.stdout.flush()
