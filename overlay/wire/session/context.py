"""The state that the parts of one process's sessions share, as one argument."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from overlay.model import Card
from overlay.wire.handshake.gate import HandshakeGate
from overlay.wire.handshake.newcomers import Newcomers
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.keyring import Keyring
from overlay.wire.identity.signatures import KeySigner
from overlay.wire.session.banned_peers import BannedPeers
from overlay.wire.session.datagram_maker import DatagramMaker
from overlay.wire.session.peer_table import PeerTable
from overlay.wire.session.session_table import SessionTable


@dataclass(frozen=True, slots=True)
class SessionContext:
    """The identity and keys of a process, the nodes that it knows, and its sessions with them."""

    identity: Identity
    signer: KeySigner
    keyring: Keyring
    wall_clock: Callable[[], float]  # Unix time in seconds
    maker: DatagramMaker
    gate: HandshakeGate
    peers: PeerTable
    banned: BannedPeers
    newcomers: Newcomers
    table: SessionTable

    def learn(self, card: Card) -> None:
        """Add a peer from a verified card, or update its address; raises RemoteError."""
        if card.node_id != self.identity.node_id and card.node_id not in self.banned:
            self.peers.learn(card)
            self.newcomers.discard(card.node_id)
