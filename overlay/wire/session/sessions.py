"""Sealed sessions with every peer: sans-IO, datagrams in, datagrams out.

Owns: what is sealed, and what is opened of a session. A session comes from a Noise handshake of two
known identities (IKpsk2) alone (`handshake_receiver`). `open` orders its checks by cost, and each
names its drop counter.

`session_table` and `link` decide which session seals and when one is renewed; `core.keys.rotation`
decides which cluster key is in use, and `keys_changed` applies that.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from cryptography.exceptions import InvalidTag

from overlay import limits
from overlay.errors import RemoteError
from overlay.model import Card, Ip, NodeId
from overlay.wire.codec import datagram, session_header
from overlay.wire.codec.datagram import UNKNOWN_KIND, Datagram, UdpEndpoint
from overlay.wire.handshake.cookies import MACS_SIZE, receiver_key
from overlay.wire.handshake.gate import HandshakeGate
from overlay.wire.handshake.hello import NO_PROCESS
from overlay.wire.handshake.newcomers import Newcomers
from overlay.wire.handshake.noise import nonce
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.keyring import Keyring
from overlay.wire.identity.signatures import KeySigner
from overlay.wire.session.banned_peers import BannedPeers
from overlay.wire.session.context import SessionContext
from overlay.wire.session.datagram_maker import DatagramMaker
from overlay.wire.session.frames import FrameType, read_frame
from overlay.wire.session.handshake_receiver import HandshakeReceiver
from overlay.wire.session.hello_sender import HelloSender
from overlay.wire.session.link import NEVER, Link
from overlay.wire.session.opened_datagram import NO_SESSION, REPLAYED, OpenedDatagram, with_frame
from overlay.wire.session.peer_table import PeerTable
from overlay.wire.session.session_table import SessionTable


class Sessions:
    """All sessions of one process; `table` has the counters, `context` all that its parts share.

    `wall_clock` returns Unix time in seconds, to check the certificates of unknown nodes.
    """

    def __init__(
        self,
        identity: Identity,
        signer: KeySigner,
        keyring: Keyring,
        card: Card,
        random_bytes: Callable[[int], bytes],
        wall_clock: Callable[[], float],
    ) -> None:
        cluster_id = signer.anchor.cluster_id
        self._cluster_key = receiver_key(cluster_id)
        self.context = context = SessionContext(
            identity,
            signer,
            keyring,
            wall_clock,
            DatagramMaker(identity, cluster_id, keyring, card, random_bytes),
            HandshakeGate(random_bytes),
            PeerTable(identity),
            BannedPeers(),
            Newcomers(),
            SessionTable(keyring.ring, lambda: int.from_bytes(random_bytes(4), "big")),
        )
        self.table = context.table
        self._identity, self._signer, self._keyring = identity, signer, keyring
        self._maker, self._peers = context.maker, context.peers
        self._hellos = HelloSender(context)
        self._handshakes = HandshakeReceiver(context, self._hellos)

    # --- peers --------------------------------------------------------------------------

    def learn(self, card: Card) -> None:
        """Add a peer from a verified card, or update its address."""
        self.context.learn(card)

    def set_card(self, card: Card) -> None:
        """Use a renewed card of this node from now on."""
        self._maker.card = card

    def forget(self, node_id: NodeId) -> None:
        """Ban an identity: its datagrams are dropped, and its hellos answered by that."""
        self.context.banned.add(node_id)
        self._peers.remove(node_id)
        self.context.newcomers.discard(node_id)
        self.table.forget(node_id)

    def mark_unresponsive(self, node_id: NodeId) -> None:
        """Note that a peer does not answer, until it does.

        It may have restarted without knowing this node's address, which only a hello can tell it.
        """
        if node_id in self._peers:
            self.table.link(node_id).is_unresponsive = True

    def member_at(self, source: UdpEndpoint) -> NodeId | None:
        """Return the peer that has an address and port, by its card."""
        card = self._peers.at(source)
        return None if card is None else card.node_id

    def established(self, node_id: NodeId, now: float) -> bool:
        """Return whether payloads to a node can be sealed now."""
        link = self.table.find(node_id)
        return link is not None and self.table.sealing_session(link, now) is not None

    # --- time and keys ------------------------------------------------------------------

    def keys_changed(self, now: float) -> list[Datagram]:
        """Follow the keyring; return hellos to peers that wait for a common key."""
        self._maker.contact.forget_keys()
        return self._hellos.hellos(self.table.keys_changed(self._keyring.ring, now), now)

    def next_timer(self) -> float:
        """Return when `handle_timer` is due."""
        return self.table.next_timer()

    def handle_timer(self, now: float) -> list[Datagram]:
        """Erase what is over; return hellos that are repeated."""
        repeated = self.table.handle_timer(now)
        for node_id in self.context.newcomers.expire(now):
            self.table.forget(node_id)
        return self._hellos.hellos(repeated, now)

    # --- sending ------------------------------------------------------------------------

    def seal(self, to: NodeId, payload: bytes, now: float) -> list[Datagram]:
        """Return the datagrams for a payload.

        Without a session it is queued and a hello goes out.
        """
        card = self._peers.get(to)
        if card is None:
            return []
        link = self.table.link(to)
        session = self.table.sealing_session(link, now)
        if session is None:
            is_due = self.table.queue(link, payload, now)
            return [self._hellos.hello(link, card, now)] if is_due else []
        sealed = self._maker.seal(session, FrameType.PAYLOAD, payload, card)
        if self.table.wants_renewal(link, session, now):
            return [self._hellos.hello(link, card, now), sealed]
        return [sealed]

    def first_hello(self, address: Ip, port: int, now: float) -> list[Datagram]:
        """Return a first contact to an address of an unknown node."""
        return [
            self._maker.join(UdpEndpoint(address, port), NO_PROCESS, self._keyring.sealing, now)
        ]

    def send_key(self, to: NodeId, now: float) -> list[Datagram]:
        """Return the newest key for a peer; without a session, a hello."""
        card = self._peers.get(to)
        if card is None:
            return []
        link = self.table.link(to)
        session = link.current
        if session is None or now >= session.sends_until():
            return [self._hellos.hello(link, card, now)] if link.hello_due(now) else []
        return [self._maker.seal_key(session, self._keyring.ring.newest, card)]

    # --- receiving ----------------------------------------------------------------------

    def open(self, data: bytes, source: UdpEndpoint, now: float) -> OpenedDatagram:
        """Return a datagram's content; raises RemoteError to drop it."""
        match datagram.read_kind(data):
            case datagram.DATA:
                return self._open_data(data, source, now)
            case datagram.HELLO:
                return self._handshakes.open_hello(data, source, now)
            case datagram.RESPONSE:
                return self._handshakes.open_response(data, now)
            case datagram.JOIN:
                return self._handshakes.open_join(data, source, now)
            case datagram.COOKIE:
                return self._handshakes.open_cookie(data, source, now)
            case _:
                raise RemoteError(UNKNOWN_KIND)  # of the join handshake, not of a session

    def admit(
        self, data: bytes, source: UdpEndpoint, now: float
    ) -> tuple[bytes, tuple[Datagram, ...]]:
        """Return an admission's datagram without its macs; or nothing, and a cookie to send.

        Raises RemoteError for one that is dropped.
        """
        cookie = self.context.gate.check(self._cluster_key, 0, data, source, now)
        if cookie is not None:
            return b"", (Datagram(*source, cookie),)
        return data[:-MACS_SIZE], ()

    def _open_data(self, data: bytes, source: UdpEndpoint, now: float) -> OpenedDatagram:
        index, counter = session_header.read_data_header(data)
        found = self.table.session(index, now)
        if found is None:
            return self._hellos.prompted(self._peers.at(source), NO_SESSION, now)
        link, session = found
        size = limits.SESSION_HEADER_SIZE
        try:
            plain = session.keys.receiving.decrypt(nonce(counter), data[size:], data[:size])
        except InvalidTag:
            raise RemoteError(datagram.UNAUTHENTICATED) from None
        if not session.window.accept(counter):
            raise RemoteError(REPLAYED)
        kind, content = read_frame(plain)
        opened = OpenedDatagram(link.node_id)
        if session.index in link.unproven:
            opened = self._handshakes.established(link, session, None, now)
            if opened.duplicate is not None:
                return opened
        link.heard(session, now)
        if session is not link.current:
            opened = replace(opened, replies=(*opened.replies, *self._confirm_again(link, now)))
        if kind is FrameType.PAYLOAD:
            if session.key is None:
                raise RemoteError(NO_SESSION)  # without a common cluster key
            self.table.count(session)
        return with_frame(opened, kind, content, self._signer, self._identity.node_id)

    def _confirm_again(self, link: Link, now: float) -> tuple[Datagram, ...]:
        """Return a confirmation of the current session to a peer that still uses the previous."""
        card, current = self._peers.get(link.node_id), link.current
        if card is None or current is None or current.heard_at != NEVER or not link.hello_due(now):
            return ()
        link.hello_at = now
        return (self._maker.seal(current, FrameType.CONFIRM, b"", card),)
