"""The resources that the agent's own process uses."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class ProcessFacts:
    """One process."""

    start_time_s: float  # Unix time
    cpu_s: float
    memory_bytes: int
    open_fds: int


def process_facts(start_time_s: float) -> ProcessFacts:
    """Return what this process uses now; its start is known to the caller (proc(5))."""
    pages = Path("/proc/self/statm").read_text(encoding="ascii").split()[1]
    return ProcessFacts(
        start_time_s,
        time.process_time(),
        int(pages) * os.sysconf("SC_PAGE_SIZE"),
        len(os.listdir("/proc/self/fd")) - 1,  # listing it opens one  # noqa: PTH208
    )
