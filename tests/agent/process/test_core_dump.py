"""Core dumps of the agent."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
import ctypes
from overlay.agent.process import confinement
prctl, get_dumpable = ctypes.CDLL(None).prctl, 3  # linux/prctl.h
print(prctl(get_dumpable, 0, 0, 0, 0))
confinement.forbid_core_dumps()
print(prctl(get_dumpable, 0, 0, 0, 0))
"""


def test_a_process_that_forbids_its_dumps_is_not_dumpable() -> None:
    """The kernel says so itself, and said otherwise before."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    )

    assert done.stdout.split() == ["1", "0"]
