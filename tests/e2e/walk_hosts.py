"""The hosts of a random walk: requests to them, also while their agents are killed meanwhile.

Owns: when a request is repeated, and which refusals are permitted. Does not: choose what is asked,
or know what follows from it (`walk`).
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from overlay.lab.driver import AgentDriver, ApiRefusedError, Json

SETTLE_S = 60.0
# Permitted refusals while a host is partitioned, or was a moment ago.
CONFLICT = 409
EXCUSED = (404, 409, 500, 503, 504)


class WalkHosts:
    """The hosts of one walk, counted from 1."""

    def __init__(self, drivers: list[AgentDriver], tell: Callable[[str], None]) -> None:
        self.drivers = drivers
        self.shaken = False  # an agent was killed or partitioned, and may still be catching up
        self.is_cut = False
        self.delay_s: float | None = None  # until the next verb's agent is killed
        self.repeated = False  # the newest request, as its agent was killed
        self._tell = tell

    def driver(self, number: int) -> AgentDriver:
        """Return what drives a host."""
        return self.drivers[number - 1]

    def ask(self, number: int, method: str, path: str, **body: Any) -> Json:
        """Send a request that must succeed.

        A host that was killed or partitioned a moment ago may refuse it for a while; one that is
        killed meanwhile gets it once more.
        """
        self._tell(f"vm{number} {method} {path} {body or ''}")
        self.repeated = False
        if self.delay_s is None:
            return self._call(number, method, path, body)
        delay_s, self.delay_s = self.delay_s, None
        with self._ending(number, delay_s), contextlib.suppress(OSError, ValueError):
            return self._call(number, method, path, body)
        self._tell(f"vm{number} asked once more")
        self.repeated = True
        return self._call(number, method, path, body)

    @contextlib.contextmanager
    def _ending(self, number: int, delay_s: float) -> Iterator[None]:
        """Kill an agent so long after the block has begun, and start it again after the block."""
        self._tell(f"vm{number} kill -9 {1000 * delay_s:.0f} ms after that")
        timer = threading.Timer(delay_s, self.driver(number).end)
        timer.start()
        try:
            yield
        finally:
            timer.join()
            self.driver(number).start()
            self.shaken = True

    def _call(self, number: int, method: str, path: str, body: Json) -> Json:
        until = time.monotonic() + SETTLE_S
        while True:
            try:
                return self.driver(number).call(method, path, body if method == "POST" else None)
            except ApiRefusedError as error:
                if self.repeated and method == "DELETE" and error.status == 404:
                    return {}  # the first request had succeeded
                if self.is_cut or not self.shaken or error.status not in EXCUSED:
                    raise
                if time.monotonic() > until:
                    raise
            time.sleep(0.05)

    def must_refuse(self, number: int, method: str, path: str, **body: Any) -> None:
        """Send a request that must be refused as a conflict."""
        if self.shaken:
            return
        answer: object = None
        try:
            answer = self.ask(number, method, path, **body)
        except ApiRefusedError as error:
            if error.status == CONFLICT:
                return
            raise
        raise AssertionError(f"not refused: {answer}")
