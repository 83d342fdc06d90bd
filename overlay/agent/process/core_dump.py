"""Keeping the agent's memory, which has every key in it, out of core dumps.

Owns: one prctl(2). A limit of size would not do: dumps that go to a program instead of a file
ignore it (core(5)).
"""

from __future__ import annotations

import ctypes
import logging
import os

_PR_GET_DUMPABLE = 3  # linux/prctl.h
_PR_SET_DUMPABLE = 4


def forbid_core_dumps() -> None:
    """Let neither a crash nor another process of the same user write this process's memory."""
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        text = os.strerror(ctypes.get_errno())
        logging.getLogger("overlayd").warning("cannot forbid core dumps: %s", text)


def core_dumps_forbidden() -> bool:
    """Say whether the kernel dumps nothing of this process."""
    library = ctypes.CDLL(None, use_errno=True)
    return int(library.prctl(_PR_GET_DUMPABLE, 0, 0, 0, 0)) == 0
