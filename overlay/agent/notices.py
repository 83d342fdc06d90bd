"""The notices of `overlayd status`: what is over or elsewhere, and still worth knowing.

A notice is no fault: nothing is wrong on this host now, and `status --check` passes.
Owns: which events count as such, and how they are summed up. Changes nothing.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from overlay import limits
from overlay.agent.components import Components
from overlay.errors import SHORTAGE_HINT, is_of_shortage

_NUMBER: Final = re.compile(r"(?<![\w.:-])\d+(?![\w.:-])")  # not within names and addresses
_FILTER_HINT: Final = (
    "'nft flush ruleset', or a firewall that reloads, does this. Rules of other programs do not "
    "return by themselves: restart Docker or the firewall, and let it flush only its own tables"
)
_HINT: Final = (
    "Another program changes what overlayd owns: 'overlayd events --kind repaired' lists each time"
)


class Notice(NamedTuple):
    """A notice, and what to do about it."""

    text: str
    hint: str


def notices(components: Components, events: list[dict[str, Any]]) -> list[Notice]:
    """Return the notices, given the recent events: repairs here, and conditions of members."""
    found = list(repairs(events, time.time()))[: limits.REPAIRS_SHOWN_MAX]
    return found + [Notice(*each) for each in components.netcheck.conditions.notices()]


def repairs(events: list[dict[str, Any]], now: float) -> Iterator[Notice]:
    """Yield what was repaired within the last minutes, the latest first: when, and how often."""
    kinds: dict[str, list[dict[str, Any]]] = {}
    for event in reversed(events):
        age_s = now - event["time"]
        if event.get("kind") == "repaired" and 0 <= age_s <= limits.NETCHECK_REWRITTEN_S:
            kinds.setdefault(_NUMBER.sub("0", str(event["text"])), []).append(event)
    for found in kinds.values():
        latest, count = found[0], len(found)
        ago = f"{now - latest['time']:.0f} s ago"
        often = "" if count == 1 else f", {count} times within the last 10 minutes"
        place = f"network {latest['network']}: " if latest.get("network") else ""
        text = str(latest["text"])
        is_filter = "filter" in text or "nftables" in text
        hint = _FILTER_HINT if is_filter else _HINT
        hint = SHORTAGE_HINT if is_of_shortage(text) else hint
        yield Notice(f"{place}{text} ({ago}{often})", hint)
