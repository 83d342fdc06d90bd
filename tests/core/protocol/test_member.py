"""The values that membership reports."""

from __future__ import annotations

from overlay.core.protocol.member import Member, MemberChanged
from overlay.core.protocol.messages import MemberState
from overlay.model import NodeId

PEER = NodeId(b"p" * 16)


def test_values_compare_by_content() -> None:
    """Equal reports are equal values, and can be in sets."""
    assert MemberChanged(PEER, None, MemberState.ALIVE) == MemberChanged(PEER, None, MemberState(0))
    assert len({Member(PEER, MemberState.ALIVE, 1.0, 2, None) for _ in range(2)}) == 1
