"""Judge policies: what the records decide on a connection, and whether the sandbox has it."""

from __future__ import annotations

from collections.abc import Iterator

from overlay.core.dataplane.state import HookRow, PolicyClassRow, Row, VerdictRow
from overlay.core.policy.decision import Basis, Decision
from overlay.core.protocol.trace import Step
from overlay.core.trace.facts import HostFacts, PolicyFacts
from overlay.core.trace.judgement import REPAIR, Judged, drop, ok, warn


def sending(facts: HostFacts) -> Iterator[Judged]:
    """Yield what policies do to frames from the container, if the network has any."""
    if facts.policy is not None:
        yield _judged(facts, facts.policy, is_request=facts.policy.is_opened_here)


def receiving(facts: HostFacts) -> Iterator[Judged]:
    """Yield what policies do to frames to the container, if the network has any."""
    if facts.policy is not None:
        yield _judged(facts, facts.policy, is_request=not facts.policy.is_opened_here)


def _judged(facts: HostFacts, found: PolicyFacts, *, is_request: bool) -> Judged:
    difference = _difference(facts)
    if difference:
        return warn(Step.POLICY, difference, REPAIR)
    if not is_request:
        return ok(Step.POLICY, "answers of an allowed connection pass")
    text = reason(found.decision, found.network)
    if found.decision.allowed:
        return ok(Step.POLICY, text)
    name = found.decision.policy
    hint = (
        f"overlayd policy inspect {name}; to let it pass: overlayd policy rm {name}, or set"
        if name
        else f"Allow it: overlayd policy create NAME --network {found.network} --from PEER "
        "--to PEER --port PORT"
    )
    return drop(Step.POLICY, text, hint)


def _difference(facts: HostFacts) -> str:
    """Return how the sandbox's rules differ from the records; empty if they do not."""
    wanted, there = (
        {row for row in state.rows if _is_of_policy(row)} for state in (facts.desired, facts.actual)
    )
    if not wanted:
        return "this host has no rules for the network's policies yet"
    count = len(wanted ^ there)
    return f"the kernel has other rules than the records, in {count} rows" if count else ""


def _is_of_policy(row: Row) -> bool:
    if isinstance(row, HookRow):
        return row.is_policed
    return isinstance(row, PolicyClassRow | VerdictRow)


def reason(decision: Decision, network: str) -> str:
    """Return what decides on a connection, as a sentence."""
    match decision.basis:
        case Basis.ALWAYS:
            return "gateways always answer DNS and DHCP"
        case Basis.POLICY:
            return f"policy {decision.policy} {'allows' if decision.allowed else 'denies'} it"
    if decision.allowed:
        return f"no policy denies it, and network {network} allows by default"
    return f"no policy allows it, and network {network} denies by default"
