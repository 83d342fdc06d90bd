"""Refresh an answer every second until Ctrl-C.

Owns: the interval and how the screen is redrawn. Does not: know what is shown.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

INTERVAL_S = 1.0
_HOME_AND_CLEAR = "\x1b[H\x1b[J"


def watch(show: Callable[[], None], *, redraw: bool = True) -> int:
    """Call `show` every second, redrawing a terminal. Returns 0 after Ctrl-C."""
    try:
        while True:
            if redraw and sys.stdout.isatty():
                sys.stdout.write(_HOME_AND_CLEAR)
            show()
            sys.stdout.flush()
            time.sleep(INTERVAL_S)
    except KeyboardInterrupt:
        return 0
