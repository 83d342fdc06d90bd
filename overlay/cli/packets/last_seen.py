"""Say where a marked packet was seen last, on either host, and so where it was lost.

The last sighting in the order of travel counts: out of the container, out of its host, into the
other host, into the other container; then its answer, by the same places in reverse.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from overlay.cli.capture.far_states import text_and_hint
from overlay.core.protocol.capture import Place, PlacedSighting

if TYPE_CHECKING:
    from overlay.client.api import JsonObject


OUTSIDE = "outside"
"""The kind of a target behind a VTEP of a fabric, and the state of its end: no agent looks."""


def last_seen(way: JsonObject, here: Iterable[PlacedSighting], far: JsonObject) -> str:
    """Return where a request, or its answer, was seen last; empty if nowhere.

    `here` is what this host saw, `far` the answer of POST /v1/trace/sightings.
    """
    own = {(each.place, each.is_outgoing): each.ifname for each in here}
    node, name = way["source"]["node"], way["source"]["name"]
    if ifname := own.get((Place.HOST, False)):
        return f"its answer, as it came to {node} by {ifname}: then it was lost on {node}"
    out, left = own.get((Place.HOST, True)), own.get((Place.CONTAINER, True))
    at_far = _at_far(way, far)
    if at_far or (out is None and left is None):
        return at_far
    if out is not None:
        vtep = way["way"]["peer_vtep"]
        return f"as it left {node} by {out} for {vtep}: {_after(way, far)}"
    if node != way["target"]["node"]:
        return f"as it left {name} by {left}: then it was lost on {node}"
    lost = "then it" if far["state"] == "capturing" else "it, or its answer,"
    return f"as it left {name} by {left}: {lost} was lost on {node}"


def _at_far(way: JsonObject, far: JsonObject) -> str:
    """Return the last sighting at the target's end; empty if there is none."""
    target, node = way["target"], way["target"]["node"]
    source = way["source"]["node"]
    seen = {(each["place"], each["outgoing"]): each["ifname"] for each in far["sightings"]}
    if ifname := seen.get(("host", True)):
        where = f"then it was lost between the hosts, or as it came to {source}"
        return f"its answer, as it left {node} by {ifname}: {where}"
    if ifname := seen.get(("container", True)):
        return f"its answer, as it left {target['name']} by {ifname}: then it was lost on {node}"
    if ifname := seen.get(("container", False)):
        return f"as it reached {target['name']} by {ifname} on {node}, which did not answer"
    if ifname := seen.get(("host", False)):
        return f"as it came to {node} by {ifname}: then it was lost on {node}"
    return ""


def _after(way: JsonObject, far: JsonObject) -> str:
    """Return where a packet was lost that has left its host."""
    target = way["target"]
    if far["state"] == "capturing":
        return f"it did not come to {target['node']}, and was lost between the hosts"
    if far["state"] == OUTSIDE:
        return f"it, or its answer, was lost between the hosts or behind {target['node']}"
    text, _ = text_and_hint(far["state"], target["node"], way["source"]["name"], target["name"])
    return f"it, or its answer, was lost between the hosts or on {target['node']} ({text})"
