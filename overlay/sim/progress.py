"""The progress line of a run, and its story as it happens.

Uses the real clock, which the run itself must not.
"""

from __future__ import annotations

import time
from typing import Final, TextIO

from overlay.sim.run import Run

_REFRESH_S: Final = 0.2


class Progress:
    """One line that is rewritten on a terminal.

    Elsewhere nothing is shown but the story.
    """

    def __init__(self, run: Run, out: TextIO, *, story: bool) -> None:
        self._run = run
        self._out = out
        self._shows_story = story
        self._lines = 0
        self._started = time.monotonic()
        self._shown_at = 0.0
        self._live = out.isatty()

    def step(self) -> None:
        """Show the present state of the run."""
        if self._shows_story:
            self._print_story()
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

    def _print_story(self) -> None:
        for when, text in self._run.world.story[self._lines :]:
            self._out.write(f"{when:8.3f} s  {text}\n")
        self._lines = len(self._run.world.story)

    def end(self) -> None:
        """Clear the line."""
        if self._shows_story:
            self._print_story()
        if self._live:
            self._out.write("\r\x1b[2K")
            self._out.flush()
