"""The declarations of a member about others that are accepted."""

from __future__ import annotations

import pytest
from overlay.core.log.live_entries import COUNT_MAX
from overlay.core.protocol.records import CLUSTER_SCOPE, ForgottenNode
from overlay.model import NodeId
from tests.core.replication.test_replication import Net


def test_declarations_beyond_the_bound_ban_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """A member may make up any number of ids; the authority's warrants always count."""
    monkeypatch.setitem(COUNT_MAX, "forgotten", 3)
    net = Net(6)
    one, two = net.add(1), net.add(2)
    net.meet()
    net.run(1.0)
    made_up = [NodeId(bytes([number]) * 16) for number in range(10)]
    warranted = NodeId(b"\xff" * 16)
    net.write(one, CLUSTER_SCOPE, *map(ForgottenNode, made_up), ForgottenNode(warranted, b"w" * 64))
    net.run(1.0)

    banned = [each for each in (*made_up, warranted) if two.is_forgotten(each)]
    assert banned == [*made_up[:3], warranted]
