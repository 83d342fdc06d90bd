"""The grace period of dead nodes."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.gossip.dead_node_expiry import DeadNodeExpiry
from overlay.core.protocol.messages import MemberState
from overlay.model import NodeId

NODE, UNKNOWN = NodeId(b"n" * 16), NodeId(b"u" * 16)
GRACE_S = 100.0


def expiry(state: MemberState, since: float, now: float) -> DeadNodeExpiry:
    """Return the expiry for a cluster with one other node."""
    known = {NODE: SimpleNamespace(state=state, since=since)}
    gossip = SimpleNamespace(
        node=SimpleNamespace(membership=SimpleNamespace(member=known.get)),
        transport=SimpleNamespace(now=lambda: now),
    )
    return DeadNodeExpiry(cast("Any", gossip), GRACE_S)


@pytest.mark.parametrize(
    ("state", "now", "expired"),
    [
        (MemberState.DEAD, 1 + GRACE_S, False),
        (MemberState.DEAD, 2 + GRACE_S, True),
        (MemberState.SUSPECT, 1000.0, False),
        (MemberState.ALIVE, 1000.0, False),
    ],
)
def test_a_node_expires_when_dead_beyond_the_grace(
    state: MemberState, now: float, *, expired: bool
) -> None:
    """Neither a live node nor one that died recently expires."""
    assert expiry(state, 1.0, now).is_expired(NODE) is expired


def test_an_unknown_node_does_not_expire() -> None:
    """Other rules decide about nodes that are no members."""
    assert not expiry(MemberState.DEAD, 0.0, 1000.0).is_expired(UNKNOWN)
