"""Policies in the explanation of a way: what decides, and where."""

from __future__ import annotations

import pytest
from overlay.core.policy.decision import Basis, Decision
from overlay.core.protocol.trace import Outcome, Phase, Step
from overlay.core.trace.facts import PolicyFacts
from tests.core.trace.bench import bad, facts, finding

DENIED = Decision(False, Basis.POLICY, "no-mail")


@pytest.mark.parametrize(
    ("decision", "outcome", "text"),
    [
        (Decision(True, Basis.POLICY, "db"), Outcome.OK, "policy db allows it"),
        (DENIED, Outcome.DROP, "policy no-mail denies it"),
        (
            Decision(True, Basis.DEFAULT),
            Outcome.OK,
            "no policy denies it, and network blue allows by default",
        ),
        (
            Decision(False, Basis.DEFAULT),
            Outcome.DROP,
            "no policy allows it, and network blue denies by default",
        ),
        (Decision(True, Basis.ALWAYS), Outcome.OK, "gateways always answer DNS and DHCP"),
    ],
)
def test_the_deciding_policy_is_named(decision: Decision, outcome: Outcome, text: str) -> None:
    """Where the connection is opened, and where it goes to; with what to do."""
    here = facts(policy=PolicyFacts("blue", decision, is_opened_here=True))
    there = facts(policy=PolicyFacts("blue", decision, is_opened_here=False))

    for found in (
        finding(here, Step.POLICY, Phase.SEND),
        finding(there, Step.POLICY, Phase.RECEIVE),
    ):
        assert (found.outcome, found.text) == (outcome, text)
        assert bool(found.hint) == (outcome is Outcome.DROP)


def test_answers_pass() -> None:
    """A denied connection is denied where it is opened, not at its answers as well."""
    here = facts(policy=PolicyFacts("blue", DENIED, is_opened_here=True))

    assert bad(here, Phase.RECEIVE) == []
    assert finding(here, Step.POLICY, Phase.RECEIVE).outcome is Outcome.OK
