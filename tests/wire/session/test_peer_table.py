"""The table of known peers, and members' addresses."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
from overlay import limits
from overlay.errors import RemoteError
from overlay.model import Card, Ip, NodeId, parse_ip
from overlay.wire.identity.identity import Identity
from overlay.wire.session.peer_table import PeerTable

HERE, THERE = parse_ip("192.0.2.1"), parse_ip("192.0.2.2")


class Agrees:
    """An identity that agrees with any key: no secret is needed here."""

    def agree(self, seal_key: bytes) -> bytes:
        """Return a shared secret."""
        return seal_key


def card(number: int, address: Ip = HERE) -> Card:
    """Return the card of node `number`."""
    key = number.to_bytes(32, "big")
    return Card(NodeId(key[16:]), f"n{number}", key, key, address, 7948, 5, 1500, "test")


@pytest.fixture
def book() -> PeerTable:
    """Return an empty table."""
    return PeerTable(cast("Identity", Agrees()))


def test_an_address_is_a_members_until_its_last_peer_is_gone(book: PeerTable) -> None:
    """Two agents may share an address, with different ports."""
    book.learn(card(1))
    book.learn(card(2))

    book.remove(card(1).node_id)
    assert book.is_address(HERE)
    book.remove(card(2).node_id)
    assert not book.is_address(HERE)


def test_a_peer_moves_with_a_later_card_only(book: PeerTable) -> None:
    """A card of an earlier epoch is late: it has a former address."""
    peer = book.learn(card(1))

    book.learn(replace(card(1, THERE), epoch=4))
    assert (peer.card.address, book.is_address(THERE)) == (HERE, False)
    assert book.learn(replace(card(1, THERE), epoch=6)) is peer
    assert (book.is_address(HERE), book.is_address(THERE)) == (False, True)


def test_one_peer_too_many_is_refused_and_known_ones_are_not(book: PeerTable) -> None:
    """Memory for peers is bounded, whatever cards come."""
    for number in range(limits.MEMBER_COUNT_MAX):
        book.learn(card(number))

    with pytest.raises(RemoteError) as caught:
        book.learn(card(limits.MEMBER_COUNT_MAX))
    assert caught.value.reason == "too-many-peers"
    assert book.learn(card(7)) is book.get(card(7).node_id)
    assert book.get(card(limits.MEMBER_COUNT_MAX).node_id) is None
