"""Findings without their phase, and the remedy that most of them share."""

from __future__ import annotations

from typing import NamedTuple

from overlay.core.protocol.trace import Outcome, Step

REPAIR = "overlayd verify --repair   (the agent also repairs this by itself)"


class Judged(NamedTuple):
    """The effect of one step on a frame."""

    step: Step
    outcome: Outcome
    text: str
    hint: str = ""


def ok(step: Step, text: str) -> Judged:
    """Return that a frame passes."""
    return Judged(step, Outcome.OK, text)


def warn(step: Step, text: str, hint: str) -> Judged:
    """Return that a frame passes in a worse way, or that only some pass."""
    return Judged(step, Outcome.WARN, text, hint)


def drop(step: Step, text: str, hint: str = REPAIR) -> Judged:
    """Return that a frame is lost."""
    return Judged(step, Outcome.DROP, text, hint)


def unknown(step: Step, text: str, hint: str) -> Judged:
    """Return that nobody can tell."""
    return Judged(step, Outcome.UNKNOWN, text, hint)
