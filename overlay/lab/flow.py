"""A stream of numbered packets between two containers, and its result."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from typing import Any, Self

from overlay.errors import OverlayError
from overlay.lab import host_process, traffic
from overlay.lab.driver import AgentDriver

PORT = 7000
PER_SECOND = 1000
_END_TIMEOUT_S = 60.0


@dataclass(frozen=True, slots=True)
class ContainerLocation:
    """A container: the host it is on and its namespace's name."""

    driver: AgentDriver
    namespace: str


@dataclass(frozen=True, slots=True)
class FlowResult:
    """The result of a flow; times are of the monotonic clock, in seconds."""

    sent: int
    received: int
    duplicates: int
    silence_max_s: float
    first_at: float | None
    last_at: float | None

    @property
    def lost(self) -> int:
        """The number of packets that did not arrive."""
        return self.sent - self.received


def require_no_loss(verdicts: list[FlowResult]) -> str:
    """Return a summary of the flows.

    Raises AssertionError if a packet was lost or arrived twice, or if none was sent.
    """
    sent = sum(each.sent for each in verdicts)
    lost = sum(each.lost for each in verdicts)
    twice = sum(each.duplicates for each in verdicts)
    assert sent > 0, "no packet was sent"
    assert (lost, twice) == (0, 0), f"{lost} of {sent} packets lost, {twice} arrived twice"
    return f"0 of {sent} packets lost"


class Receiver:
    """The receiving end of a flow."""

    def __init__(self, place: ContainerLocation, port: int = PORT) -> None:
        self._process = _run(place, "receive", str(port))
        assert self._process.stdout is not None
        if self._process.stdout.readline().strip() != "ready":
            raise OverlayError(f"no receiver in {place.namespace}")

    def end(self, sent: int = 0) -> dict[str, Any]:
        """Stop receiving, once as many have arrived or are late; return the statistics."""
        return _ended(self._process, f"{sent}\n")


class Flow:
    """A flow from one container to another for the duration of a block."""

    def __init__(
        self,
        source: ContainerLocation,
        target: ContainerLocation,
        address: str,
        *,
        port: int = PORT,
        per_second: int = PER_SECOND,
    ) -> None:  # fmt: skip
        self._words = (source, target, address, port, per_second)
        self.verdict: FlowResult | None = None

    def __enter__(self) -> Self:
        source, target, address, port, per_second = self._words
        self._receiver = Receiver(target, port)
        self._sender = _run(source, "send", address, str(port), str(per_second))
        return self

    def __exit__(self, *_details: object) -> None:
        sent = int(_ended(self._sender)["sent"])
        got = self._receiver.end(sent)
        self.verdict = FlowResult(
            sent, got["received"], got["duplicates"], got["silence_max_s"],
            got["first_at"], got["last_at"],
        )  # fmt: skip


def _run(place: ContainerLocation, *words: str) -> subprocess.Popen[str]:
    inside = ["ip", "netns", "exec", place.namespace, sys.executable, traffic.__file__, *words]
    return subprocess.Popen(
        host_process.enter_command(place.driver.host, inside),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=host_process.environment(),
    )


def _ended(process: subprocess.Popen[str], told: str = "") -> dict[str, Any]:
    output, _ = process.communicate(told, timeout=_END_TIMEOUT_S)
    found: dict[str, Any] = json.loads(output.splitlines()[-1])
    return found
