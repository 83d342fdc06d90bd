"""The verdict on a whole way, from the findings of both hosts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from overlay.core.protocol.trace import Finding, Outcome, Phase, Step


class Leg(NamedTuple):
    """A part of a way: what one host does to frames in one direction.

    `is_answer`: of the answers, from the target to the source.
    """

    node: str
    phase: Phase
    is_answer: bool
    findings: tuple[Finding, ...]


class Verdict(NamedTuple):
    """The fate of a packet, with what to do about it."""

    outcome: Outcome
    text: str
    hint: str


def legs_of(
    source: tuple[str, Sequence[Finding]], target: tuple[str, Sequence[Finding]]
) -> list[Leg]:
    """Return the legs in the order of travel: there, and the answer back."""

    def leg(half: tuple[str, Sequence[Finding]], phase: Phase, *, is_answer: bool) -> Leg:
        node, found = half
        return Leg(node, phase, is_answer, tuple(each for each in found if each.phase is phase))

    return [
        leg(source, Phase.SEND, is_answer=False),
        leg(target, Phase.RECEIVE, is_answer=False),
        leg(target, Phase.SEND, is_answer=True),
        leg(source, Phase.RECEIVE, is_answer=True),
    ]


def verdict(legs: Sequence[Leg]) -> Verdict:
    """Return the first thing that drops a packet, else what is unknown, else what is worse."""
    for outcome in (Outcome.DROP, Outcome.UNKNOWN, Outcome.WARN):
        for leg in legs:
            found = next((each for each in leg.findings if each.outcome is outcome), None)
            if found is not None:
                return Verdict(outcome, _text(leg, found), found.hint)
    return Verdict(Outcome.OK, "nothing would drop it, nor the answer", "")


def _text(leg: Leg, found: Finding) -> str:
    what = "the answer" if leg.is_answer else "it"
    match found.outcome:
        case Outcome.DROP:
            return f"{what} would be {_fate(leg, found.step)}: {found.text}"
        case Outcome.UNKNOWN:
            return f"nothing would drop it as far as is known, but on {leg.node}: {found.text}"
        case _:
            return f"it would arrive, but on {leg.node}: {found.text}"


def _fate(leg: Leg, step: int) -> str:
    if step == Step.LISTENER:
        return f"refused on {leg.node}"
    if step == Step.PATH:
        return f"lost on the way {'from' if leg.phase is Phase.SEND else 'to'} {leg.node}"
    return f"dropped on {leg.node}"
