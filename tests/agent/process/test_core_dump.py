"""Core dumps of the agent."""

from __future__ import annotations

import subprocess
import sys

PROGRAM = """
from overlay.agent.process import confinement
print(confinement.core_dumps_forbidden())
confinement.forbid_core_dumps()
print(confinement.core_dumps_forbidden())
"""


def test_a_process_that_forbids_its_dumps_is_not_dumpable() -> None:
    """The kernel says so itself, and said otherwise before."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    )

    assert done.stdout.split() == ["False", "True"]
