"""What is said of a packet that was sent for real; e2e tests send some."""

from __future__ import annotations

from typing import Any

import pytest
from overlay.cli.packets.attempt import last_seen
from overlay.kernel.packet_tap import Sighting

OUT, IN = Sighting("eth1", is_outgoing=True), Sighting("eth1", is_outgoing=False)
LEFT = Sighting("eth0", is_outgoing=True)


def way(node: str = "vm2") -> dict[str, Any]:
    """Return the way from web on vm1 to a container on a host."""
    return {
        "source": {"name": "web", "node": "vm1"},
        "target": {"name": "db", "node": node},
        "way": {"peer_vtep": None if node == "vm1" else "192.0.2.2"},
    }


LOST_LATER = "it, or its answer, was lost"


@pytest.mark.parametrize(
    ("node", "inside", "on_host", "text"),
    [
        ("vm2", [], [], ""),
        ("vm2", [LEFT], [], "as it left web by eth0: then it was lost on vm1"),
        ("vm1", [LEFT], [], f"as it left web by eth0: {LOST_LATER} on vm1"),
        (
            "vm2",
            [LEFT],
            [OUT],
            f"as it left vm1 by eth1 for 192.0.2.2: {LOST_LATER} between the hosts or on vm2",
        ),
        (
            "vm2",
            [LEFT],
            [OUT, IN],
            "its answer, as it came to vm1 by eth1: then it was lost on vm1",
        ),
    ],
)
def test_a_packet_is_last_seen_where_it_passed_last(
    node: str, inside: list[Sighting], on_host: list[Sighting], text: str
) -> None:
    """The answer is behind the request; nothing is claimed about another host."""
    assert last_seen(way(node), inside, on_host) == text
