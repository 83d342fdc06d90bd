"""The declarations of a member about others that are accepted."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.core.log.live_entries import COUNT_MAX
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    Entry,
    ForgottenNode,
    ReclaimStatement,
    key_of,
)
from overlay.core.replication.segment_policy import violates_forget_rules
from overlay.model import NodeId
from overlay.sim.environment.notary import FakeSigner
from tests.core.replication.test_replication import Net

LIVING, DEAD, GONE = (NodeId(letter * 16) for letter in (b"l", b"d", b"g"))
WARRANT, FORGED = b"w" * 64, b"f" * 64
STATEMENT = ReclaimStatement(LIVING, DEAD, 0, 1, ())


@pytest.mark.parametrize(
    ("values", "is_refused"),
    [
        ([ForgottenNode(LIVING)], True),
        ([ForgottenNode(DEAD)], False),
        ([ForgottenNode(GONE)], False),  # known here already
        ([ForgottenNode(LIVING, WARRANT)], False),
        ([ForgottenNode(LIVING, FORGED)], True),
        ([ForgottenNode(DEAD), ForgottenNode(LIVING)], True),
        ([STATEMENT], True),
        ([STATEMENT, ForgottenNode(LIVING, WARRANT)], False),
        ([STATEMENT, ForgottenNode(LIVING)], True),
        ([ReclaimStatement(DEAD, DEAD, 0, 1, ())], False),
    ],
)
def test_a_live_node_is_forgotten_by_a_warrant_alone(values: list[Any], is_refused: bool) -> None:
    """By a declaration, and by a statement about one, which would take its addresses, too."""
    entries = [Entry(at + 1, key_of(value), value) for at, value in enumerate(values)]
    segment = FakeSigner(b"k" * 32).issue_segment(CLUSTER_SCOPE, 0, 0, len(entries), entries)
    membership = SimpleNamespace(seems_alive=lambda node_id, _now: node_id != DEAD)
    authority = SimpleNamespace(verify_warrant=lambda record: record.warrant == WARRANT)
    refused = violates_forget_rules(
        segment, {GONE}, cast("Any", membership), cast("Any", authority), 0.0
    )

    assert refused is is_refused


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
