"""Accept cards, and update membership from them.

Owns: the checks of a card from any source, and the conclusions from a card of this node that it
did not issue. Does not: know how the card arrived (`node`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection

from overlay import limits
from overlay.core.events import CardAccepted, DuplicateIdentity, Event, NodeForgotten, OwnCardAhead
from overlay.core.log.store import Store
from overlay.core.membership.machine import Membership
from overlay.core.protocol.interfaces import Signer
from overlay.errors import RemoteError
from overlay.model import Card, NodeId

EPOCH_SHIFT = 20  # an incarnation is the epoch in the upper bits, refutations in the lower
BAD_SIGNATURE = "bad-signature"


class CardIntake:
    """Verifies cards and puts them into the store.

    `forgotten` nodes are not members, whatever their cards say. Their earlier records stay
    (networks, grants), and are verified by their cards.
    """

    def __init__(
        self,
        store: Store,
        membership: Membership,
        signer: Signer,
        forgotten: Collection[NodeId],
        event: Callable[[Event], None],
    ) -> None:
        self._store = store
        self._membership = membership
        self._signer = signer
        self._forgotten = forgotten
        self._event = event
        self._own_cards_seen = 0

    def handle_card(self, card: Card, now: float) -> None:
        """Accept a card if it is newer; raises RemoteError if it is forged."""
        if card.node_id == self._store.self_id:
            self._handle_own_card(card)
            return
        known = self._store.card(card.node_id)
        if known is not None and known.epoch >= card.epoch:
            return
        if known is None and len(self._store.cards) >= limits.MEMBER_COUNT_MAX:
            return
        if not self._signer.verify_card(card):
            raise RemoteError(BAD_SIGNATURE)
        self._store.accept_card(card)
        self._event(CardAccepted(card))
        if card.node_id in self._forgotten:
            self._event(NodeForgotten(card.node_id))
        else:
            self.admit(card, now)

    def admit(self, card: Card, now: float) -> None:
        """Add the node of a stored card as a member, or as one that has left."""
        incarnation = card.epoch << EPOCH_SHIFT
        if card.left:
            self._membership.mark_left(card.node_id, incarnation, now)
        else:
            self._membership.add(card.node_id, now, incarnation)

    def _handle_own_card(self, card: Card) -> None:
        """Report a newer card of this node: an older disk here, or a clone."""
        own = self._store.cards[self._store.self_id]
        if card.epoch < own.epoch or card.raw == own.raw:
            return
        if not self._signer.verify_card(card):
            raise RemoteError(BAD_SIGNATURE)
        self._own_cards_seen += 1
        if card.address != own.address and self._own_cards_seen > 1:
            self._event(DuplicateIdentity(card.node_id, card.address))
        self._event(OwnCardAhead(card.epoch))
