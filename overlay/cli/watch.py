"""Showing an answer again and again until Ctrl-C.

Owns: the pause and how a screen is redrawn. Must not know what is shown.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

INTERVAL_S = 1.0
_HOME_AND_CLEAR = "\x1b[H\x1b[J"


def watch(show: Callable[[], None]) -> int:
    """Call `show` every second; on a terminal each time from its top. Ends with Ctrl-C, as 0."""
    try:
        while True:
            if sys.stdout.isatty():
                sys.stdout.write(_HOME_AND_CLEAR)
            show()
            sys.stdout.flush()
            time.sleep(INTERVAL_S)
    except KeyboardInterrupt:
        return 0
