"""The known peers: their cards, by node id, by seal key and by address.

Owns: the bound on their number. Does not: know sessions, or who is banned.
"""

from __future__ import annotations

from collections.abc import Iterator

from overlay import limits
from overlay.errors import RemoteError
from overlay.model import Card, NodeId
from overlay.wire.codec.datagram import UdpEndpoint
from overlay.wire.handshake.hello import BAD_CARD
from overlay.wire.identity.identity import Identity

TOO_MANY_PEERS = "too-many-peers"


class PeerTable:
    """All peers of one process, in the order of learning."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._cards: dict[NodeId, Card] = {}
        self._by_seal_key: dict[bytes, NodeId] = {}
        self._by_place: dict[UdpEndpoint, NodeId] = {}

    def __iter__(self) -> Iterator[Card]:
        return iter(self._cards.values())

    def __contains__(self, node_id: NodeId) -> bool:
        return node_id in self._cards

    def get(self, node_id: NodeId) -> Card | None:
        """Return a peer's card, or None if it is not known."""
        return self._cards.get(node_id)

    def by_seal_key(self, seal_key: bytes) -> Card | None:
        """Return the card of the peer with a seal key."""
        node_id = self._by_seal_key.get(seal_key)
        return None if node_id is None else self._cards[node_id]

    def at(self, place: UdpEndpoint) -> Card | None:
        """Return the card of the peer with an address and port, by its own statement."""
        node_id = self._by_place.get(place)
        return None if node_id is None else self._cards[node_id]

    def learn(self, card: Card) -> Card:
        """Add a peer from a verified card, or a later card of it; return the latest.

        Raises RemoteError for one peer too many, and for a card with an invalid key.
        """
        known = self._cards.get(card.node_id)
        if known is not None and card.epoch < known.epoch:
            return known
        if known is None and len(self._cards) >= limits.MEMBER_COUNT_MAX:
            raise RemoteError(TOO_MANY_PEERS)
        if known is None or known.seal_key != card.seal_key:
            self._require_valid_key(card)
        if known is not None:
            self._leaves(known)
        self._cards[card.node_id] = card
        self._by_seal_key[card.seal_key] = card.node_id
        self._by_place[place_of(card)] = card.node_id
        return card

    def remove(self, node_id: NodeId) -> Card | None:
        """Remove a peer; return its card, if it was known."""
        card = self._cards.pop(node_id, None)
        if card is not None:
            self._leaves(card)
        return card

    def _require_valid_key(self, card: Card) -> None:
        """Raise RemoteError for a seal key of low order, or one that another peer has."""
        try:
            self._identity.agree(card.seal_key)
        except ValueError:
            raise RemoteError(BAD_CARD) from None
        if self._by_seal_key.get(card.seal_key, card.node_id) != card.node_id:
            raise RemoteError(BAD_CARD)

    def _leaves(self, card: Card) -> None:
        self._by_seal_key.pop(card.seal_key, None)
        if self._by_place.get(place_of(card)) == card.node_id:
            del self._by_place[place_of(card)]


def place_of(card: Card) -> UdpEndpoint:
    """Return the address and port on a card."""
    return UdpEndpoint(card.address, card.gossip_port)
