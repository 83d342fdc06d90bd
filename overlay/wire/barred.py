"""Forgotten nodes: nothing they say is heard any more, and all they hear is that.

Owns: who is barred, and when one that proves to be itself is told so. Must not know why.
"""

from __future__ import annotations

from dataclasses import dataclass

from overlay.errors import RemoteError
from overlay.model import Card, NodeId
from overlay.wire import notices
from overlay.wire.envelope import DATA, JOIN, KEY, NOTICE, Datagram, Header
from overlay.wire.hello import read_hello
from overlay.wire.notary import KeyNotary
from overlay.wire.peers import NEVER, Peer
from overlay.wire.sealing import Sealing

BARRED = "barred"


@dataclass(slots=True)
class _Known:
    """What it takes to tell a node that it is barred, if its keys were known."""

    peer: Peer | None
    told_at: float = NEVER


class Barred:
    """The barred nodes of one process."""

    def __init__(self, sealing: Sealing, notary: KeyNotary) -> None:
        self._sealing = sealing
        self._notary = notary
        self._nodes: dict[NodeId, _Known] = {}

    def __contains__(self, node_id: NodeId) -> bool:
        return node_id in self._nodes

    def add(self, node_id: NodeId, peer: Peer | None) -> None:
        """Bar a node for good."""
        self._nodes.setdefault(node_id, _Known(peer))

    def tell(self, header: Header, data: bytes, now: float) -> Datagram:
        """Return what tells a barred node that it is, when it proves to be that node; not often.

        Raises RemoteError with the reason of the drop.
        """
        known = self._nodes[header.sender]
        if known.peer is None or now - known.told_at < notices.INTERVAL_S:
            raise RemoteError(BARRED)
        card = self._card_of(known.peer, header, data)
        known.told_at = now
        return notices.notice(self._sealing, known.peer, card, notices.FORGOTTEN)

    def _card_of(self, peer: Peer, header: Header, data: bytes) -> Card:
        """Return the sender's card, if the datagram is really its own."""
        if header.kind == DATA:
            if peer.channel is None:
                raise RemoteError(BARRED)
            key = self._sealing.key_of(header)
            self._sealing.open_data(peer, peer.channel, key, header, data)
            return peer.card
        if header.kind in (NOTICE, KEY):
            raise RemoteError(BARRED)
        if header.kind == JOIN:
            body = self._sealing.open_join(self._sealing.key_of(header), header, data)
        else:
            body = self._sealing.open_pair(peer, header, data)
        return read_hello(header.sender, self._notary, body).card
