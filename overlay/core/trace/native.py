"""Judge the shortcut by which frames of other hosts come past the VXLAN device."""

from __future__ import annotations

from collections.abc import Iterator

from overlay.core.dataplane.planning.links import shortcut_name
from overlay.core.dataplane.state import HookRow
from overlay.core.protocol.trace import Step
from overlay.core.trace.facts import HostFacts
from overlay.core.trace.judgement import REPAIR, Judged, drop, ok, warn


def path_in(facts: HostFacts) -> Iterator[Judged]:
    """Yield whether frames from another host come by the shortcut, if one is planned."""
    step, name = Step.FAST_PATH, shortcut_name(facts.own.segment)
    if facts.peer.vtep is None or name not in facts.desired.links:
        return
    found = facts.actual.links.get(name)
    hooks = {HookRow(facts.own.segment, name, policed) for policed in (False, True)}
    if found is None:
        yield warn(step, f"{name} is gone: frames take the VXLAN device", REPAIR)
    elif "up" in found.altered:
        yield drop(step, f"{name} is down")
    elif not hooks & facts.actual.rows:
        yield drop(step, f"no program is at {name}: it hands frames to nobody")
    else:
        yield ok(step, f"frames come past the VXLAN device, by {name} (eBPF)")
