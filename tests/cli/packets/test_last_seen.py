"""Where a packet was seen last, on both hosts; e2e tests send some."""

from __future__ import annotations

from typing import Any

import pytest
from overlay.cli.packets.last_seen import last_seen
from overlay.core.protocol.capture import Place, PlacedSighting

LEFT = PlacedSighting(Place.CONTAINER, "eth0", is_outgoing=True)
OUT = PlacedSighting(Place.HOST, "eth1", is_outgoing=True)
IN = PlacedSighting(Place.HOST, "eth1", is_outgoing=False)
LOST, THEN = "it, or its answer, was lost", "then it was lost"
LEFT_HOST = "as it left vm1 by eth1 for 192.0.2.2"


def way(node: str = "vm2") -> dict[str, Any]:
    """Return the way from web on vm1 to a container on a host."""
    return {
        "source": {"name": "web", "node": "vm1"},
        "target": {"name": "db", "node": node},
        "way": {"peer_vtep": None if node == "vm1" else "192.0.2.2"},
    }


def far(*seen: str, state: str = "capturing") -> dict[str, Any]:
    """Return what the target's host says; `host in` is a sighting."""
    sightings = [
        {"place": place, "ifname": "eth1" if place == "host" else "eth0", "outgoing": way == "out"}
        for place, way in (each.split() for each in seen)
    ]
    return {"node": "vm2", "state": state, "sightings": sightings}


@pytest.mark.parametrize(
    ("node", "here", "there", "text"),
    [
        ("vm2", [], far(), ""),
        ("vm2", [LEFT], far(), "as it left web by eth0: then it was lost on vm1"),
        ("vm1", [LEFT], far(), "as it left web by eth0: then it was lost on vm1"),
        (
            "vm1",
            [LEFT],
            far(state="forbidden"),
            "as it left web by eth0: it, or its answer, was lost on vm1",
        ),
        (
            "vm1",
            [LEFT],
            far("container in"),
            "as it reached db by eth0 on vm1, which did not answer",
        ),
        (
            "vm2",
            [LEFT, OUT],
            far(),
            f"{LEFT_HOST}: it did not come to vm2, and was lost between the hosts",
        ),
        (
            "vm2",
            [LEFT, OUT],
            far(state="silent"),
            f"{LEFT_HOST}: {LOST} between the hosts or on vm2 (the agent of vm2 does not answer)",
        ),
        (
            "vm2",
            [LEFT, OUT],
            far("host in"),
            "as it came to vm2 by eth1: then it was lost on vm2",
        ),
        (
            "vm2",
            [LEFT, OUT],
            far("host in", "container in"),
            "as it reached db by eth0 on vm2, which did not answer",
        ),
        (
            "vm2",
            [LEFT, OUT],
            far("host in", "container in", "container out"),
            "its answer, as it left db by eth0: then it was lost on vm2",
        ),
        (
            "vm2",
            [LEFT, OUT],
            far("container out", "host out"),
            f"its answer, as it left vm2 by eth1: {THEN} between the hosts, or as it came to vm1",
        ),
        (
            "vm2",
            [LEFT, OUT, IN],
            far("container out", "host out"),
            "its answer, as it came to vm1 by eth1: then it was lost on vm1",
        ),
    ],
)
def test_the_last_sighting_in_the_order_of_travel_counts(
    node: str, here: list[PlacedSighting], there: dict[str, Any], text: str
) -> None:
    """The answer is behind the request; nothing is claimed of a host that was not asked."""
    assert last_seen(way(node), here, there) == text
