"""The identities that count as former ones of this host."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay.agent.former_identity import FormerIdentity
from overlay.agent.state.identity_trail import IdentityTrail
from overlay.kernel import former_identity as leftovers
from overlay.model import NodeId

OWN, NOTED = NodeId(b"own" + bytes(13)), NodeId(b"old" + bytes(13))
SAME, LOOKALIKE, OTHER = (NodeId(text + bytes(13 - 1)) for text in (b"same", b"owns", b"elsw"))
NOTHING = cast("Any", None)


def card(node_id: NodeId, address: bytes = b"\n\0\0\1") -> SimpleNamespace:
    """Return a card with what counts."""
    return SimpleNamespace(node_id=node_id, address=address, gossip_port=7948)


async def test_a_member_cannot_pass_for_this_hosts_past(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An id that begins like this node's own, with this host's address, removes nothing here."""
    cards = [card(OWN), card(SAME), card(LOOKALIKE), card(OTHER, b"\n\0\0\2")]
    store = SimpleNamespace(cards={each.node_id: each for each in cards})
    gossip = SimpleNamespace(
        node_id=OWN, card=cards[0], node=SimpleNamespace(store=store), cluster=SimpleNamespace()
    )
    context = SimpleNamespace(gossip=gossip, directory=NOTHING, kernel=NOTHING, event_log=NOTHING)
    IdentityTrail(tmp_path).note(NOTED)
    trail = IdentityTrail(tmp_path)
    former = FormerIdentity(cast("Any", context), NOTHING, NOTHING, NOTHING, NOTHING, trail)
    taken: list[NodeId] = []

    async def take_over(node_id: NodeId) -> None:
        taken.append(node_id)

    async def nothing(*_: object) -> bool:
        return True

    monkeypatch.setattr(former, "_take_over", take_over)
    monkeypatch.setattr(former, "_wait_for_records", nothing)
    monkeypatch.setattr(former, "_restart", SimpleNamespace(attach_remembered=nothing))
    await former.reconcile()

    assert taken == [NOTED, SAME]
    assert trail.former(OWN) == [NOTED]
    trail.drop(NOTED)
    assert IdentityTrail(tmp_path).former(OWN) == []
    assert leftovers.sandboxes_of(NodeId(b"\xee" * 16)) == []
