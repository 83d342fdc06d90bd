"""The progress line of a run, and the story as it happens.

Owns: what is shown while one waits; it looks at the real clock, which the run itself must not.
"""

from __future__ import annotations

import time
from typing import Final, TextIO

from overlay.sim.run import Run

_REFRESH_S: Final = 0.2


class Progress:
    """One line that is rewritten on a terminal; silent elsewhere, but for the story."""

    def __init__(self, run: Run, out: TextIO, *, told: bool) -> None:
        self._run = run
        self._out = out
        self._told = told
        self._lines = 0
        self._started = time.monotonic()
        self._shown_at = 0.0
        self._live = out.isatty()

    def step(self) -> None:
        """Show how far the run is."""
        if self._told:
            self._tell()
        now = time.monotonic()
        if self._live and now - self._shown_at >= _REFRESH_S:
            self._shown_at = now
            self._out.write(f"\r\x1b[2K{self._line()}")
            self._out.flush()

    def _line(self) -> str:
        run, world = self._run, self._run.world
        elapsed_s = max(1e-9, time.monotonic() - self._started)
        up = sum(host.node is not None for host in world.hosts)
        speed = len(world.hosts) * world.schedule.now / elapsed_s
        return (
            f"{run.phase:6} {world.schedule.now:7.1f} s  {up}/{len(world.hosts)} up  "
            f"{len(world.invariants.running)} containers  "
            f"{100 * run.convergence.share:.2f} % of records current  "
            f"{speed:,.0f} node-seconds/s"
        )

    def _tell(self) -> None:
        for when, text in self._run.world.story[self._lines :]:
            self._out.write(f"{when:8.3f} s  {text}\n")
        self._lines = len(self._run.world.story)

    def end(self) -> None:
        """Clear the line."""
        if self._told:
            self._tell()
        if self._live:
            self._out.write("\r\x1b[2K")
            self._out.flush()
