"""Apply the objects declared for this host one by one, so that one that fails holds up no other.

Any member may declare objects for any host, as many as it has records.

Owns: the failures of a pass, and how many of them are shown. Does not: know what is declared.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from overlay import limits
from overlay.agent.process.controller import Controller, Fault
from overlay.agent.process.event_log import EventLog
from overlay.errors import OverlayError


class HostFollower(Controller):
    """Keeps a part of this host as the records declare it."""

    problem = "objects declared for this host are not in force"
    settle_s = 0.05  # one pass covers a file of several objects
    retry_max_s = 10.0
    things: str  # what is declared, for people: "plugs"

    def __init__(self, event_log: EventLog) -> None:
        super().__init__(event_log)
        self.failures: dict[str, OverlayError] = {}  # of the last pass, by title

    @contextlib.contextmanager
    def noting(self, title: str) -> Iterator[None]:
        """Note an OverlayError or OSError of one object, so that it holds up no other."""
        try:
            yield
        except OverlayError as error:
            self.failures[title] = error
        except OSError as error:
            self.failures[title] = OverlayError(error.strerror or str(error))

    def require_all(self) -> None:
        """Raise OverlayError for the first failure of the pass, so that it is retried."""
        for title, error in self.failures.items():
            raise OverlayError(f"{title}: {error.what}", why=error.why, hint=error.hint)

    def faults(self) -> Iterator[Fault]:
        """Yield what could not be made so, of very many the first; or why none could be."""
        failures = list(self.failures.items())
        if not failures:
            yield from super().faults()
        for title, error in failures[: limits.DECLARED_FAULTS_MAX]:
            reason = f"{error.what}: {error.why}" if error.why else error.what
            yield Fault(
                f"{title} is declared for this host, and not in force: {reason}",
                error.hint or "The agent retries automatically",
            )
        if further := len(failures[limits.DECLARED_FAULTS_MAX :]):
            yield Fault(
                f"{further} further {self.things} are declared for this host, and not in force",
                "overlayd export shows what is declared",
            )
