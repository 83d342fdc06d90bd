"""Forgotten nodes: nothing they say is heard any more, and all they hear is that.

Owns: who is barred, and when one that proves to be itself is told so. Must not know why.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from overlay.core.protocol.records import KeyId
from overlay.errors import RemoteError
from overlay.model import NodeId
from overlay.wire.codec.datagram import DATA, HELLO, JOIN, Datagram, Header
from overlay.wire.identity.signatures import KeySigner
from overlay.wire.session import notices
from overlay.wire.session.hello import SessionHello, read_hello
from overlay.wire.session.peers import NEVER, Peer
from overlay.wire.session.sealer import Sealer

BARRED = "barred"


@dataclass(slots=True)
class _Known:
    """What it takes to tell a node that it is barred, if its keys were known."""

    peer: Peer | None
    told_at: float = NEVER


class BannedPeers:
    """The barred nodes of one process.

    `join` makes our own first contact, the answer to one.
    """

    def __init__(
        self, sealing: Sealer, signer: KeySigner, join: Callable[[SessionHello, KeyId], Datagram]
    ) -> None:
        self._sealing = sealing
        self._signer = signer
        self._join = join
        self._nodes: dict[NodeId, _Known] = {}

    def __contains__(self, node_id: NodeId) -> bool:
        return node_id in self._nodes

    def add(self, node_id: NodeId, peer: Peer | None) -> None:
        """Bar a node for good; its keys may be known later only."""
        known = self._nodes.setdefault(node_id, _Known(peer))
        known.peer = known.peer or peer

    def notice_for(self, header: Header, data: bytes, now: float) -> tuple[Datagram, ...]:
        """Return what tells a barred node that it is, when it proves to be that node; not often.

        Raises RemoteError with the reason of the drop.
        """
        known = self._nodes[header.sender]
        peer = known.peer
        replies: tuple[Datagram, ...]
        if peer is None or now - known.told_at < notices.INTERVAL_S:
            raise RemoteError(BARRED)
        if header.kind == DATA:
            self._prove(peer, header, data)
            replies, card = (), peer.card
        elif header.kind == JOIN:
            # It does not know us, nor could it open a notice: who we are goes before.
            key = self._sealing.key_of(header)
            hello = self._read(header, self._sealing.open_join(key, header, data))
            replies, card = (self._join(hello, key),), hello.card
        elif header.kind == HELLO:
            replies, card = (), self._read(header, self._sealing.open_pair(peer, header, data)).card
        else:
            raise RemoteError(BARRED)
        known.told_at = now
        return (*replies, notices.notice(self._sealing, peer, card, notices.FORGOTTEN))

    def _prove(self, peer: Peer, header: Header, data: bytes) -> None:
        if peer.channel is None:
            raise RemoteError(BARRED)
        self._sealing.open_data(peer, peer.channel, self._sealing.key_of(header), header, data)

    def _read(self, header: Header, body: bytes) -> SessionHello:
        return read_hello(header.sender, self._signer, body)
