"""Notices of the status: repairs of the last minutes, summed up."""

from __future__ import annotations

from typing import Any

from overlay import limits
from overlay.agent.notices import repairs

NOW = 10_000.0


def event(age_s: float, text: str, kind: str = "repaired", **fields: Any) -> dict[str, Any]:
    """Return an event as the ring has it."""
    return {"time": NOW - age_s, "kind": kind, "level": "warning", "text": text, **fields}


def test_repairs_of_one_kind_are_one_notice() -> None:
    """With the time of the latest and how many there were; other kinds and old ones are none."""
    gone = "the filter of the VXLAN port was altered or gone: rewritten"
    events = [
        event(limits.NETCHECK_REWRITTEN_S + 1, gone),
        event(300, gone),
        event(90, "port p1 is gone: repaired by 3 operations", network="blue"),
        event(60, "vm2 is suspect", kind="member"),
        event(30, "port p1 is gone: repaired by 12 operations", network="blue"),
        event(12, gone),
    ]
    found = list(repairs(events, NOW))
    assert [each.text for each in found] == [
        f"{gone} (12 s ago, 2 times within the last 10 minutes)",
        (
            "network blue: port p1 is gone: repaired by 12 operations "
            "(30 s ago, 2 times within the last 10 minutes)"
        ),
    ]
    assert "restart Docker or the firewall" in found[0].hint
    assert "events --kind repaired" in found[1].hint


def test_a_quiet_host_has_no_notice() -> None:
    """Nor has one whose clock was set back after a repair."""
    assert list(repairs([], NOW)) == []
    assert list(repairs([event(-50, "it was gone: repaired")], NOW)) == []


def test_a_shortage_in_a_repair_has_its_own_hint() -> None:
    """No other program did it."""
    (found,) = repairs([event(5, "in netns:c2: Too many open files: not repaired")], NOW)
    assert "`ulimit -n`" in found.hint
