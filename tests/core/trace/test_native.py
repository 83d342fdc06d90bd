"""A broken shortcut is found at its step, and only where one is planned."""

from __future__ import annotations

from overlay.core.dataplane.link_state import Shortcut
from overlay.core.dataplane.planning.links import shortcut_name
from overlay.core.dataplane.state import HookRow, SandboxState
from overlay.core.protocol.trace import Outcome, Phase, Step
from overlay.core.trace import judge
from tests.core.trace.bench import bad, facts, planned, with_link, without

NAME = shortcut_name(0)
HOOK = HookRow(0, NAME)
PLAIN = planned()
PLAN = SandboxState({**PLAIN.links, NAME: Shortcut(NAME, 1450)}, PLAIN.rows | {HOOK})


def of(actual: SandboxState) -> list[tuple[Step, Outcome]]:
    """Return what is wrong with frames that this host receives."""
    return bad(facts(desired=PLAN, actual=actual), Phase.RECEIVE)


def test_a_shortcut_that_is_gone_costs_speed_alone() -> None:
    """Frames take the VXLAN device; one that is there is mentioned."""
    assert of(without(PLAN, HOOK, links=(NAME,))) == [(Step.FAST_PATH, Outcome.WARN)]
    assert of(PLAN) == []
    texts = [each.text for each in judge.findings(facts(desired=PLAN, actual=PLAN))]
    assert f"frames come past the VXLAN device, by {NAME} (eBPF)" in texts


def test_a_shortcut_that_leads_nowhere_loses_frames() -> None:
    """One that is down, and one without a program."""
    down = with_link(PLAN, NAME, altered=("up",))
    assert of(down) == of(without(PLAN, HOOK)) == [(Step.FAST_PATH, Outcome.DROP)]


def test_without_a_plan_no_shortcut_is_missed() -> None:
    """Networks of other hosts' agents, or encrypted ones."""
    texts = [each.text for each in judge.findings(facts())]
    assert not any(NAME in text for text in texts)
