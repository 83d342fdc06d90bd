"""The verdict is the first thing that drops a packet, in the order of travel."""

from __future__ import annotations

import pytest
from overlay.core.protocol.trace import Finding, Outcome, Phase, Step
from overlay.core.trace.verdict import legs_of, verdict

OK, WARN, DROP, UNKNOWN = Outcome.OK, Outcome.WARN, Outcome.DROP, Outcome.UNKNOWN


def half(send: Outcome, receive: Outcome, step: Step = Step.PORT) -> list[Finding]:
    """Return one host's findings: one in each direction."""
    return [
        Finding(Phase.RECEIVE, step, receive, "received", "hint r"),
        Finding(Phase.SEND, step, send, "sent", "hint s"),
    ]


@pytest.mark.parametrize(
    ("source", "target", "outcome", "text"),
    [
        ((OK, OK), (OK, OK), OK, "nothing would drop it, nor the answer"),
        ((DROP, OK), (OK, DROP), DROP, "it would be dropped on vm1: sent"),
        ((WARN, OK), (OK, DROP), DROP, "it would be dropped on vm2: received"),
        ((OK, DROP), (DROP, OK), DROP, "the answer would be dropped on vm2: sent"),
        ((OK, DROP), (OK, OK), DROP, "the answer would be dropped on vm1: received"),
        ((WARN, OK), (UNKNOWN, UNKNOWN), UNKNOWN, "as far as is known, but on vm2: received"),
        ((OK, OK), (WARN, OK), WARN, "it would arrive, but on vm2: sent"),
    ],
)
def test_the_first_drop_decides(
    source: tuple[Outcome, Outcome], target: tuple[Outcome, Outcome], outcome: Outcome, text: str
) -> None:
    """There before back; then what is unknown, then what is worse."""
    found = verdict(legs_of(("vm1", half(*source)), ("vm2", half(*target))))

    assert found.outcome is outcome
    assert text in found.text
    assert bool(found.hint) is (outcome is not OK)


def test_a_lost_packet_is_on_the_way_not_on_a_host() -> None:
    """And one that nobody takes is refused."""
    lost = verdict(legs_of(("vm1", half(DROP, OK, Step.PATH)), ("vm2", half(OK, OK))))
    refused = verdict(legs_of(("vm1", half(OK, OK)), ("vm2", half(OK, DROP, Step.LISTENER))))

    assert lost.text.startswith("it would be lost on the way from vm1")
    assert refused.text.startswith("it would be refused on vm2")
