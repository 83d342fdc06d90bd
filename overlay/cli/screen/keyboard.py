"""Read single keys while a screen is shown, and give the terminal back as it was.

Does not: draw anything.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import termios
import time
import tty
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_KEYS_MAX = 64  # at once
_SCREEN_OF_ITS_OWN, _FORMER_SCREEN = "\x1b[?1049h\x1b[?25l", "\x1b[?25h\x1b[?1049l"


@contextlib.contextmanager
def whole_screen() -> Iterator[Callable[[float], str]]:
    """Take over the terminal; what was on it returns at the end, also after an error or a signal.

    Yields a function that waits so many seconds for keys, and returns those that were pressed.
    """
    end_by_term = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        sys.stdout.write(_SCREEN_OF_ITS_OWN)
        with _single_keys() as wait_for_key:
            yield wait_for_key
    finally:
        sys.stdout.write(_FORMER_SCREEN)
        sys.stdout.flush()
        signal.signal(signal.SIGTERM, end_by_term)


@contextlib.contextmanager
def _single_keys() -> Iterator[Callable[[float], str]]:
    """Let the terminal hand over each key at once, without showing it."""
    if not sys.stdin.isatty():
        yield _sleep
        return
    descriptor = sys.stdin.fileno()
    before = termios.tcgetattr(descriptor)
    tty.setcbreak(descriptor)
    try:
        yield _keys
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _sleep(seconds: float) -> str:
    time.sleep(seconds)
    return ""


def _keys(seconds: float) -> str:
    descriptor = sys.stdin.fileno()
    ready, _, _ = select.select([descriptor], [], [], seconds)
    if not ready:
        return ""
    keys = os.read(descriptor, _KEYS_MAX)
    if not keys:  # the terminal is gone
        raise KeyboardInterrupt
    return keys.decode(errors="replace")
