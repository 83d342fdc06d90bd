"""Policies in the explanation of a way: what decides, and where."""

from __future__ import annotations

import pytest
from overlay.core.dataplane.state import HookRow, Row, SandboxState, VerdictRow
from overlay.core.policy.decision import Basis, Decision
from overlay.core.protocol.trace import Outcome, Phase, Step
from overlay.core.trace.facts import HostFacts, PolicyFacts
from tests.core.trace.bench import bad, facts, finding, planned

DENIED = Decision(False, Basis.POLICY, "no-mail")
RULES = (VerdictRow(0, 0, 0, 0, 0, allow=False), HookRow(0, "ve1", is_policed=True))


def policed(decision: Decision, *missing: Row, is_opened_here: bool) -> HostFacts:
    """Return the facts of a host with rules, of which the kernel lacks some."""
    plan = planned()
    desired = SandboxState(plan.links, plan.rows | set(RULES))
    return facts(
        policy=PolicyFacts("blue", decision, is_opened_here),
        desired=desired,
        actual=SandboxState(plan.links, desired.rows - set(missing)),
    )


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
    here = policed(decision, is_opened_here=True)
    there = policed(decision, is_opened_here=False)

    for found in (
        finding(here, Step.POLICY, Phase.SEND),
        finding(there, Step.POLICY, Phase.RECEIVE),
    ):
        assert (found.outcome, found.text) == (outcome, text)
        assert bool(found.hint) == (outcome is Outcome.DROP)


def test_answers_pass() -> None:
    """A denied connection is denied where it is opened, not at its answers as well."""
    here = policed(DENIED, is_opened_here=True)

    assert bad(here, Phase.RECEIVE) == []
    assert finding(here, Step.POLICY, Phase.RECEIVE).outcome is Outcome.OK


@pytest.mark.parametrize("row", RULES)
def test_other_rules_in_the_kernel_are_a_warning(row: Row) -> None:
    """They may decide otherwise than the records."""
    here = policed(DENIED, row, is_opened_here=True)

    for phase in Phase:
        found = finding(here, Step.POLICY, phase)
        assert found.outcome is Outcome.WARN
        assert "in 1 rows" in found.text


def test_rules_that_are_not_planned_yet_are_a_warning() -> None:
    """As on a host that has just heard of the first policy."""
    here = facts(policy=PolicyFacts("blue", DENIED, is_opened_here=True))

    assert finding(here, Step.POLICY, Phase.SEND).outcome is Outcome.WARN
