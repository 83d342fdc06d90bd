"""Check of the way to the other members, as `overlayd netcheck` does it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from overlay.cli import output
from overlay.cli.checks.evidence import Finding
from overlay.client.api import LOOK_TIMEOUT_S

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.cli.checks.evidence import Evidence

_SUBJECT: Final = "network"
# Said by other checks already.
_SAID: Final = ("agent-dead", "agent-hangs", "agent-hidden", "not-joined")


def check_network(evidence: Evidence) -> Iterator[Finding]:
    """Check paths, packet filters, counters and limits of the network."""
    # Only this check needs what the kernel's part imports.
    from overlay.client.netcheck.collect import Question, collect  # noqa: PLC0415
    from overlay.core.netcheck.facts import AgentState  # noqa: PLC0415
    from overlay.core.netcheck.host_judgement import HOST  # noqa: PLC0415
    from overlay.core.netcheck.judgement import judge  # noqa: PLC0415

    timeout_s = evidence.paths.timeout_s
    seconds = LOOK_TIMEOUT_S if timeout_s is None else timeout_s
    state = None  # what the agent answers
    if not evidence.is_joined:
        state = AgentState.HIDDEN if evidence.status is None else AgentState.UNJOINED
    facts, _ = collect(evidence.paths, Question(None, seconds, agent=state))
    findings = [each for each in judge(facts) if each.subject != HOST or each.code not in _SAID]
    for each in findings:
        text = f"{each.text}: {each.why}" if each.why else each.text
        yield Finding(each.level, _SUBJECT, text, each.hint)
    if not findings:
        members = output.count_text(len(facts.peers), "member")
        paths = f", and packets to {members} pass" if facts.peers else ""
        yield Finding("ok", _SUBJECT, f"no packet filter, limit or counter is in the way{paths}")
