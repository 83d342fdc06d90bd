"""Hosts that share one identity."""

from __future__ import annotations

from overlay import limits
from overlay.agent.gossip.identity_conflicts import DUPLICATE_SHOWN_S, DuplicateSightings
from overlay.model import Ip, NodeId

NODE = NodeId(b"n" * 16)
IP = Ip(b"\x0a\0\0\1")


def test_a_duplicate_is_reported_once_while_it_lasts() -> None:
    """A repeated sighting is not new; one after a long silence is."""
    rivals = DuplicateSightings()
    assert rivals.note(NODE, IP, 0.0)
    assert not rivals.note(NODE, IP, 10.0)
    assert rivals.recent(20.0) == [(NODE, IP)]
    assert rivals.recent(11.0 + DUPLICATE_SHOWN_S) == []
    assert rivals.note(NODE, IP, 11.0 + DUPLICATE_SHOWN_S)


def test_sightings_are_bounded() -> None:
    """The oldest sighting is dropped for a new one."""
    rivals = DuplicateSightings()
    for number in range(limits.RIVALS_MAX + 5):
        rivals.note(NODE, Ip(number.to_bytes(4, "big")), 0.0)

    assert len(rivals.recent(0.0)) == limits.RIVALS_MAX
