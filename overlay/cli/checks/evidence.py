"""The facts that all checks share, collected once, and what a check finds.

Owns: the requests to the agent. Does not: judge an answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple

from overlay.client.api import TIMEOUT_S, ApiClient
from overlay.errors import OverlayError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from overlay.client.api import JsonObject
    from overlay.client.paths import Paths

Level = Literal["error", "warn", "note", "ok"]
PROBLEMS: tuple[Level, ...] = ("error", "warn")


class Finding(NamedTuple):
    """A finding of a check: `error` and `warn` are problems, `note` is not, `ok` is none."""

    level: Level
    subject: str  # what was checked, in one or two words
    text: str
    remedy: str = ""  # what to do next; each problem has one


@dataclass(frozen=True, slots=True)
class Evidence:
    """The agent's answers; None where it gave none, and `failure` is why."""

    paths: Paths
    failure: OverlayError | None = None  # of the request for the status
    status: JsonObject | None = None
    members: JsonObject | None = None
    verify: JsonObject | None = None
    later_failures: tuple[OverlayError, ...] = ()  # of the requests after it

    @property
    def is_joined(self) -> bool:
        """Return whether the agent says that this host is in a cluster."""
        return self.status is not None and self.status["cluster"] is not None

    @property
    def state_dir(self) -> Path:
        """Return the state directory of the agent that runs, else that of this command."""
        return self.paths.state_dir if self.status is None else Path(self.status["state_dir"])


if TYPE_CHECKING:
    Check = Callable[[Evidence], Iterable[Finding]]


def collect(paths: Paths) -> Evidence:
    """Ask the agent for all that checks need; an agent that hangs is not asked twice."""
    try:
        status = ApiClient(paths).look("/v1/status")
    except OverlayError as error:
        return Evidence(paths, error)
    if status.get("cluster") is None:
        return Evidence(paths, status=status)
    failures: list[OverlayError] = []
    # The agent reads every sandbox for it.
    patient = ApiClient(paths, TIMEOUT_S if paths.timeout_s is None else paths.timeout_s)
    members = _answer(ApiClient(paths), "/v1/members", failures)
    verify = _answer(patient, "/v1/verify", failures)
    return Evidence(paths, None, status, members, verify, tuple(failures))


def _answer(client: ApiClient, path: str, failures: list[OverlayError]) -> JsonObject | None:
    try:
        return client.get(path)
    except OverlayError as error:
        failures.append(error)
        return None
