"""The table of known peers, and members' addresses."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import pytest
from overlay import limits
from overlay.errors import RemoteError
from overlay.model import Card, Ip, NodeId, parse_ip
from overlay.wire.codec.datagram import UdpEndpoint
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


def test_an_address_and_port_lead_to_a_peer(book: PeerTable) -> None:
    """Two agents may share an address, with different ports."""
    other = replace(card(2), gossip_port=7949)
    book.learn(card(1))
    book.learn(other)

    assert book.at(UdpEndpoint(HERE, 7948)) == card(1)
    assert book.at(UdpEndpoint(HERE, 7949)) == other
    book.remove(card(1).node_id)
    assert book.at(UdpEndpoint(HERE, 7948)) is None
    assert book.at(UdpEndpoint(HERE, 7949)) == other


def test_a_peer_moves_with_a_later_card_only(book: PeerTable) -> None:
    """A card of an earlier epoch is late: it has a former address."""
    book.learn(card(1))

    assert book.learn(replace(card(1, THERE), epoch=4)) == card(1)
    assert book.at(UdpEndpoint(THERE, 7948)) is None
    moved = replace(card(1, THERE), epoch=6)
    assert book.learn(moved) == moved
    assert book.at(UdpEndpoint(HERE, 7948)) is None
    assert book.at(UdpEndpoint(THERE, 7948)) == moved


def test_a_seal_key_belongs_to_one_peer(book: PeerTable) -> None:
    """Another node cannot claim it; the same node may replace its own."""
    book.learn(card(1))
    with pytest.raises(RemoteError, match="bad-card"):
        book.learn(replace(card(2), seal_key=card(1).seal_key))
    renewed = replace(card(1), seal_key=b"r" * 32, epoch=6)
    book.learn(renewed)

    assert book.by_seal_key(card(1).seal_key) is None
    assert book.by_seal_key(b"r" * 32) == renewed


def test_one_peer_too_many_is_refused_and_known_ones_are_not(book: PeerTable) -> None:
    """Memory for peers is bounded, whatever cards come."""
    for number in range(limits.MEMBER_COUNT_MAX):
        book.learn(card(number))

    with pytest.raises(RemoteError) as caught:
        book.learn(card(limits.MEMBER_COUNT_MAX))
    assert caught.value.reason == "too-many-peers"
    assert book.learn(card(7)) is book.get(card(7).node_id)
    assert book.get(card(limits.MEMBER_COUNT_MAX).node_id) is None
