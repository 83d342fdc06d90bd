"""Close HTTP connections on which nothing is asked, so that they do not add up.

Owns: which connections of a server serve a request, and since when the others are idle.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
from collections.abc import Iterator

from overlay.agent.process.lean_aiohttp import web
from overlay.agent.process.tasks import pause, report_defect

_INTERVAL_S = 1.0


class IdleConnections:
    """The connections of one server; at most `count_max` of them may be idle, for `silence_s`."""

    def __init__(self, runner: web.AppRunner, count_max: int, silence_s: float) -> None:
        self._runner = runner
        self._count_max = count_max
        self._silence_s = silence_s
        self._serving: collections.Counter[web.RequestHandler] = collections.Counter()
        self._idle: dict[web.RequestHandler, float] = {}  # since when
        self._task: asyncio.Task[None] | None = None

    @contextlib.contextmanager
    def serving(self, connection: web.RequestHandler) -> Iterator[None]:
        """Keep a connection open for the block."""
        self._serving[connection] += 1
        try:
            yield
        finally:
            self._serving[connection] -= 1
            if not self._serving[connection]:
                del self._serving[connection]

    def start(self) -> None:
        """Close idle connections from now on."""
        self._task = asyncio.get_running_loop().create_task(self._reap(), name="idle-reaper")

    def stop(self) -> None:
        """Stop closing them."""
        if self._task is not None:
            self._task.cancel()

    async def _reap(self) -> None:
        """Look for idle connections as long as the server runs."""
        while True:
            await pause(_INTERVAL_S)
            try:
                self._close_idle()
            except Exception as error:  # noqa: BLE001 - else connections would add up from now on
                report_defect("defect while closing idle connections", error)

    def _close_idle(self) -> None:
        """Close connections over the idle limit, and the oldest of too many."""
        now_s = asyncio.get_running_loop().time()
        server = self._runner.server
        idle = [] if server is None else [c for c in server.connections if not self._serving[c]]
        self._idle = {each: self._idle.get(each, now_s) for each in idle}
        oldest_first = sorted(idle, key=lambda each: self._idle[each])
        excess = max(0, len(idle) - self._count_max)
        for number, each in enumerate(oldest_first):
            if number < excess or now_s - self._idle[each] > self._silence_s:
                each.force_close()
