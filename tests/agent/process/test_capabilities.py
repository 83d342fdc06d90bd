"""The capabilities of a process after it has dropped the others."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from overlay.agent.process.confinement import KEPT_CAPABILITIES

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="root has something to drop")
UNIT = Path(__file__).parents[3] / "deploy" / "overlayd.service"
CONTAINERFILE = UNIT.with_name("Containerfile")
PROGRAM = """
import json, subprocess, threading
from pathlib import Path
from overlay.agent.process import confinement

def held(path):
    return {line.split(":")[0]: int(line.split()[1], 16)
            for line in Path(path).read_text().splitlines() if line.startswith("Cap")}

before = held("/proc/thread-self/status")
confinement.drop_capabilities()
found = []
thread = threading.Thread(target=lambda: found.append(held("/proc/thread-self/status")))
thread.start()
thread.join()
child = subprocess.run(["cat", "/proc/self/status"], capture_output=True, text=True).stdout
eff = [int(line.split()[1], 16) for line in child.splitlines() if line.startswith("CapPrm")]
print(json.dumps([before, held("/proc/thread-self/status"), found[0], eff[0]]))
"""


def mask() -> int:
    """Return the kept capabilities as the kernel prints them."""
    return sum(1 << number for number in KEPT_CAPABILITIES.values())


def test_only_needed_capabilities_are_kept() -> None:
    """In every set, of this thread, of a later one, and of a program that is started."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    )
    before, after, thread, program = json.loads(done.stdout)

    kept = mask() & before["CapPrm"]
    assert before["CapPrm"] & ~mask(), "there was something to drop"
    for found in (after, thread):
        assert (found["CapEff"], found["CapPrm"]) == (kept, kept)
        assert (found["CapInh"], found["CapAmb"]) == (0, 0)
        assert found["CapBnd"] & ~mask() == 0
    assert program & ~mask() == 0


def test_unit_and_container_grant_the_same_capabilities() -> None:
    """The lists in deploy/ equal the one in the code."""
    (line,) = [
        each
        for each in UNIT.read_text(encoding="utf-8").splitlines()
        if each.startswith("CapabilityBoundingSet=")
    ]
    granted = [
        word.strip("\\ ")
        for each in CONTAINERFILE.read_text(encoding="utf-8").splitlines()
        if "--cap-add" in each
        for word in each.partition("--cap-add ")[2].split(",")
    ]

    # To drop the rest, the bounding set included, takes SETPCAP; where it is not granted there is
    # no more to drop.
    assert set(line.partition("=")[2].split()) == KEPT_CAPABILITIES.keys()
    assert {f"CAP_{word}" for word in granted} == KEPT_CAPABILITIES.keys()
