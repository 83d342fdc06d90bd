"""The known peers, by node id and by address.

Owns: making a peer from a card, and the bound on their number. Does not: know sessions, or who is
barred.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from overlay import limits
from overlay.errors import RemoteError
from overlay.model import Card, Ip, NodeId
from overlay.wire.identity.identity import Identity
from overlay.wire.session.hello import BAD_CARD
from overlay.wire.session.peers import Peer

TOO_MANY_PEERS = "too-many-peers"


class PeerTable:
    """All peers of one process, in the order of learning."""

    def __init__(self, identity: Identity) -> None:
        self._identity = identity
        self._by_id: dict[NodeId, Peer] = {}
        self._addresses: Counter[Ip] = Counter()

    def __iter__(self) -> Iterator[Peer]:
        return iter(self._by_id.values())

    def get(self, node_id: NodeId) -> Peer | None:
        """Return a peer, or None if it is not known."""
        return self._by_id.get(node_id)

    def is_address(self, address: Ip) -> bool:
        """Return whether any peer has an address."""
        return self._addresses[address] > 0

    def learn(self, card: Card) -> Peer:
        """Add a peer from a verified card, or update its address.

        Raises RemoteError for one peer too many, and for a card with an invalid key.
        """
        known = self._by_id.get(card.node_id)
        if known is not None:
            if card.epoch >= known.card.epoch:
                self._leaves(known.card.address)
                self._addresses[card.address] += 1
                known.card = card
            return known
        if len(self._by_id) >= limits.MEMBER_COUNT_MAX:
            raise RemoteError(TOO_MANY_PEERS)
        made = self._by_id[card.node_id] = self.peer_of(card)
        self._addresses[card.address] += 1
        return made

    def peer_of(self, card: Card) -> Peer:
        """Return the peer of a verified card, without adding it.

        Raises RemoteError for a card with an invalid key.
        """
        try:
            return Peer(card, self._identity.agree(card.seal_key))
        except ValueError:
            raise RemoteError(BAD_CARD) from None

    def remove(self, node_id: NodeId) -> Peer | None:
        """Remove a peer; return it, if it was known."""
        peer = self._by_id.pop(node_id, None)
        if peer is not None:
            self._leaves(peer.card.address)
        return peer

    def _leaves(self, address: Ip) -> None:
        self._addresses[address] -= 1
        if not self._addresses[address]:
            del self._addresses[address]  # or a member that moves on and on would fill the memory
