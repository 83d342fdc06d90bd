"""Judge what routes to another network: the link between two sandboxes, and the route by it."""

from __future__ import annotations

from overlay.core.dataplane.link_state import OTHER_END, RouterLink
from overlay.core.dataplane.state import EntryRow, RouteRow, SandboxState
from overlay.core.protocol.trace import Step
from overlay.core.trace.facts import HostFacts, RouterFacts
from overlay.core.trace.judgement import REPAIR, Judged, drop, ok, warn
from overlay.model import Ip, ip_text

_NOT_HERE = "overlayd status; overlayd router ls: does a router connect the two networks?"


def link(facts: HostFacts, router: RouterFacts) -> Judged:
    """Return whether packets to the other network leave the sandbox by its link."""
    step, name = Step.ROUTE, router.link
    if name not in facts.desired.links:
        return drop(step, f"this host does not route to network {router.network}", _NOT_HERE)
    found = facts.actual.links.get(name)
    if not isinstance(found, RouterLink):
        return drop(step, f"{name}, the link to network {router.network}, is gone")
    for problem, text in (("up", "is down"), (OTHER_END, "does not lead there")):
        if problem in found.altered:
            return drop(step, f"{name}, the link to network {router.network}, {text}")
    target = ip_text(facts.peer.ip)
    if not _leads(facts.actual, name, facts.peer.ip):
        return drop(step, f"the gateway has no route to {target} by {name}")
    if not _enters(router.actual, facts.own.ip):
        return drop(step, f"network {router.network} lets nothing in from {ip_text(facts.own.ip)}")
    if found.altered:
        text = f"{name} has other settings than planned: {', '.join(found.altered)}"
        return warn(step, text, REPAIR)
    return ok(step, f"{target} by {name}, to network {router.network}")


def _leads(state: SandboxState, name: str, ip: Ip) -> bool:
    rows = (row for row in state.rows if isinstance(row, RouteRow) and row.link == name)
    return any(_is_in(ip, row.base, row.prefix_length) for row in rows)


def _enters(state: SandboxState, ip: Ip) -> bool:
    rows = (row for row in state.rows if isinstance(row, EntryRow) and row.allow)
    return any(_is_in(ip, row.base, row.prefix_length) for row in rows)


def _is_in(ip: Ip, base: Ip, length: int) -> bool:
    shift = 8 * len(base) - length
    number = int.from_bytes(ip, "big")
    return len(ip) == len(base) and number >> shift == int.from_bytes(base, "big") >> shift
