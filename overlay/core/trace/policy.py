"""Judge policies: what the records decide on a connection, and whether the sandbox has it."""

from __future__ import annotations

from collections.abc import Iterator

from overlay.core.policy.decision import Basis, Decision
from overlay.core.protocol.trace import Step
from overlay.core.trace.facts import HostFacts, PolicyFacts
from overlay.core.trace.judgement import Judged, drop, ok


def sending(facts: HostFacts) -> Iterator[Judged]:
    """Yield what policies do to frames from the container, if the network has any."""
    if facts.policy is not None:
        yield _judged(facts.policy, is_request=facts.policy.is_opened_here)


def receiving(facts: HostFacts) -> Iterator[Judged]:
    """Yield what policies do to frames to the container, if the network has any."""
    if facts.policy is not None:
        yield _judged(facts.policy, is_request=not facts.policy.is_opened_here)


def _judged(found: PolicyFacts, *, is_request: bool) -> Judged:
    if not is_request:
        return ok(Step.POLICY, "answers of an allowed connection pass")
    text = reason(found.decision, found.network)
    if found.decision.allowed:
        return ok(Step.POLICY, text)
    name = found.decision.policy
    hint = (
        f"overlayd policy inspect {name}; if it should pass: overlayd policy set {name}, or rm"
        if name
        else f"Allow it: overlayd policy create NAME --network {found.network} --from PEER "
        "--to PEER --port PORT"
    )
    return drop(Step.POLICY, text, hint)


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
