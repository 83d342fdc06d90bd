"""Cards that arrive from anywhere: which of them count."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, cast

import pytest
from overlay import limits
from overlay.core.events import (
    CardAccepted,
    DuplicateIdentity,
    Event,
    NodeForgotten,
    OwnCardAhead,
)
from overlay.core.log.store import Store
from overlay.core.replication.card_intake import CardIntake
from overlay.errors import RemoteError
from overlay.model import Card, NodeId, node_id_of, parse_ip
from overlay.sim.environment.notary import FakeSigner

OWN_KEY, KEY = b"o" * 32, b"k" * 32


def card(key: bytes, epoch: int = 1, address: str = "10.0.0.1") -> Card:
    """Return a signed card."""
    made = Card(node_id_of(key), "n", key, key, parse_ip(address), 7948, epoch, 1500, "test")
    return FakeSigner(key).issue_card(made)


class Intake:
    """A node that takes cards, and what it made of them."""

    def __init__(self, *forgotten: NodeId) -> None:
        self.store = Store(node_id_of(OWN_KEY))
        self.store.accept_card(card(OWN_KEY))
        self.events: list[Event] = []
        self.members: list[NodeId] = []
        membership = SimpleNamespace(
            add=lambda node_id, _now, _incarnation: self.members.append(node_id),
            mark_left=lambda *_: None,
        )
        self.intake = CardIntake(
            self.store,
            cast("Any", membership),
            FakeSigner(OWN_KEY),
            set(forgotten),
            self.events.append,
        )

    def hear(self, *cards: Card) -> list[type[Event]]:
        """Take cards; return the kinds of events since before."""
        before = len(self.events)
        for each in cards:
            self.intake.handle_card(each, 0.0)
        return [type(each) for each in self.events[before:]]


def test_only_a_newer_card_is_news() -> None:
    """The same and an older one are neither verified nor announced again."""
    node, newest = Intake(), card(KEY, 2)
    assert node.hear(newest) == [CardAccepted]
    assert node.members == [newest.node_id]

    assert node.hear(newest, card(KEY, 1), replace(newest, signature=b"")) == []
    assert node.store.card(newest.node_id) == newest
    assert node.hear(card(KEY, 3)) == [CardAccepted]


def test_a_forged_card_is_refused() -> None:
    """Nothing of it is kept."""
    node, forged = Intake(), replace(card(KEY), name="other", raw=b"other")
    with pytest.raises(RemoteError, match="bad-signature"):
        node.hear(forged)

    assert node.store.card(forged.node_id) is None
    assert node.events == []


def test_so_many_cards_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new card of a known member counts all the same."""
    monkeypatch.setattr(limits, "MEMBER_COUNT_MAX", 2)  # itself, and one more
    node = Intake()

    assert node.hear(card(KEY), card(b"x" * 32)) == [CardAccepted]
    assert node.hear(card(KEY, 2)) == [CardAccepted]


def test_a_forgotten_nodes_card_makes_no_member() -> None:
    """It is kept, as the node's records are verified by it."""
    node = Intake(node_id_of(KEY))

    assert node.hear(card(KEY)) == [CardAccepted, NodeForgotten]
    assert node.members == []
    assert node.store.card(node_id_of(KEY)) is not None


def test_a_newer_card_of_its_own_may_be_a_copy_of_its_disk() -> None:
    """The first from another address may be from before this host moved; the second is not."""
    node = Intake()
    assert node.hear(card(OWN_KEY, 5, "10.0.0.9")) == [OwnCardAhead]
    assert node.hear(card(OWN_KEY, 6, "10.0.0.9")) == [DuplicateIdentity, OwnCardAhead]
    assert node.hear(card(OWN_KEY)) == []
