"""Forgotten nodes: their datagrams are dropped, and answered by a notice.

Owns: which nodes are barred, and when one that proves its identity is sent a notice. Does not:
decide who is barred.
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
    """What is needed to send a node a notice, if its keys were known."""

    peer: Peer | None
    notified_at: float = NEVER


class BannedPeers:
    """The barred nodes of one process.

    `join` returns this node's answer to a first contact.
    """

    def __init__(
        self, sealer: Sealer, signer: KeySigner, join: Callable[[SessionHello, KeyId], Datagram]
    ) -> None:
        self._sealer = sealer
        self._signer = signer
        self._join = join
        self._nodes: dict[NodeId, _Known] = {}

    def __contains__(self, node_id: NodeId) -> bool:
        return node_id in self._nodes

    def add(self, node_id: NodeId, peer: Peer | None) -> None:
        """Bar a node permanently; its keys may become known later."""
        known = self._nodes.setdefault(node_id, _Known(peer))
        known.peer = known.peer or peer

    def notice_for(self, header: Header, data: bytes, now: float) -> tuple[Datagram, ...]:
        """Return the notice for a barred node that proves its identity.

        Not often. Raises RemoteError with the reason of the drop.
        """
        known = self._nodes[header.sender]
        peer = known.peer
        replies: tuple[Datagram, ...]
        if peer is None or now - known.notified_at < notices.INTERVAL_S:
            raise RemoteError(BARRED)
        if header.kind == DATA:
            self._prove(peer, header, data)
            replies, card = (), peer.card
        elif header.kind == JOIN:
            # It does not know this node, so it could not open the notice: send our card first.
            key = self._sealer.key_of(header)
            hello = self._read(header, self._sealer.open_join(key, header, data))
            replies, card = (self._join(hello, key),), hello.card
        elif header.kind == HELLO:
            replies, card = (), self._read(header, self._sealer.open_pair(peer, header, data)).card
        else:
            raise RemoteError(BARRED)
        known.notified_at = now
        return (*replies, notices.notice(self._sealer, peer, card, notices.FORGOTTEN))

    def _prove(self, peer: Peer, header: Header, data: bytes) -> None:
        if peer.channel is None:
            raise RemoteError(BARRED)
        self._sealer.open_data(peer, peer.channel, self._sealer.key_of(header), header, data)

    def _read(self, header: Header, body: bytes) -> SessionHello:
        return read_hello(header.sender, self._signer, body)
