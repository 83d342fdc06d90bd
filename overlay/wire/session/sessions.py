"""Sealed sessions with every peer: sans-IO, datagrams in, datagrams out.

Owns: what is sent and accepted, and in which order. A session comes from a Noise handshake of two
known identities (IKpsk2) alone. `open` orders its checks by cost, and each names its drop counter;
a sender that proves nothing gets no answer but a cookie.

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
from overlay.wire.codec.datagram import OWN_DATAGRAM, UNKNOWN_KIND, Datagram, UdpEndpoint
from overlay.wire.handshake.cookies import MACS_SIZE, receiver_key
from overlay.wire.handshake.first_contact import UNKNOWN_GENERATION
from overlay.wire.handshake.gate import HandshakeGate
from overlay.wire.handshake.handshake_maker import NO_CLUSTER_KEY, OpenedHello
from overlay.wire.handshake.hello import (
    BAD_CARD,
    NO_PROCESS,
    Statement,
    read_statement,
    require_in_force,
)
from overlay.wire.handshake.newcomers import Newcomers
from overlay.wire.handshake.noise import nonce
from overlay.wire.handshake.token_bucket import TokenBucket
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.keyring import Keyring
from overlay.wire.identity.signatures import KeySigner
from overlay.wire.session.banned_peers import BANNED, BannedPeers
from overlay.wire.session.datagram_maker import DatagramMaker
from overlay.wire.session.frames import FrameType, read_frame
from overlay.wire.session.link import NEVER, Establishment, Link, Session
from overlay.wire.session.opened_datagram import (
    COOKIE_SENT,
    LATE_RESPONSE,
    NO_COOKIE_ASKED,
    NO_SESSION,
    NOBODY,
    REPLAYED,
    OpenedDatagram,
    with_frame,
)
from overlay.wire.session.peer_table import PeerTable, place_of
from overlay.wire.session.session_table import SessionTable


class Sessions:
    """All sessions of one process; `table` has the counters.

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
        self._identity = identity
        self._signer = signer
        self._keyring = keyring
        self._wall_clock = wall_clock
        cluster_id = signer.anchor.cluster_id
        self._own_key, self._cluster_key = (
            receiver_key(name) for name in (identity.seal_public, cluster_id)
        )
        self._maker = DatagramMaker(identity, cluster_id, keyring, card, random_bytes)
        self._gate = HandshakeGate(random_bytes)
        self._peers = PeerTable(identity)
        self._banned = BannedPeers()
        self._newcomers = Newcomers()
        self._prompted = TokenBucket(
            limits.PROMPTED_HELLOS_PER_S, limits.PROMPTED_HELLOS_BURST, 0.0
        )
        self.table = SessionTable(keyring.ring, lambda: int.from_bytes(random_bytes(4), "big"))

    # --- peers --------------------------------------------------------------------------

    def learn(self, card: Card) -> None:
        """Add a peer from a verified card, or update its address."""
        if card.node_id != self._identity.node_id and card.node_id not in self._banned:
            self._peers.learn(card)
            self._newcomers.discard(card.node_id)

    def set_card(self, card: Card) -> None:
        """Use a renewed card of this node from now on."""
        self._maker.card = card

    def forget(self, node_id: NodeId) -> None:
        """Ban an identity: its datagrams are dropped, and its hellos answered by that."""
        self._banned.add(node_id)
        self._peers.remove(node_id)
        self._newcomers.discard(node_id)
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
        return self._hellos(self.table.keys_changed(self._keyring.ring, now), now)

    def next_timer(self) -> float:
        """Return when `handle_timer` is due."""
        return self.table.next_timer()

    def handle_timer(self, now: float) -> list[Datagram]:
        """Erase what is over; return hellos that are repeated."""
        repeated = self.table.handle_timer(now)
        for node_id in self._newcomers.expire(now):
            self.table.forget(node_id)
        return self._hellos(repeated, now)

    def _hellos(self, links: list[Link], now: float) -> list[Datagram]:
        found = []
        for link in links:
            card = self._peers.get(link.node_id)
            if card is not None:
                found.append(self._hello(link, card, now))
        return found

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
            return [self._hello(link, card, now)] if self.table.queue(link, payload, now) else []
        sealed = self._maker.seal(session, FrameType.PAYLOAD, payload, card)
        if self.table.wants_renewal(link, session, now):
            return [self._hello(link, card, now), sealed]
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
            return [self._hello(link, card, now)] if link.hello_due(now) else []
        return [self._maker.seal_key(session, self._keyring.ring.newest, card)]

    def _hello(self, link: Link, to: Card, now: float) -> Datagram:
        index = self.table.new_index()
        initiator, hello = self._maker.hello(index, to, now)
        self.table.add_handshake(link, index, initiator, now)
        return hello

    # --- receiving ----------------------------------------------------------------------

    def open(self, data: bytes, source: UdpEndpoint, now: float) -> OpenedDatagram:
        """Return a datagram's content; raises RemoteError to drop it."""
        match datagram.read_kind(data):
            case datagram.DATA:
                return self._open_data(data, source, now)
            case datagram.HELLO:
                return self._open_hello(data, source, now)
            case datagram.RESPONSE:
                return self._open_response(data, now)
            case datagram.JOIN:
                return self._open_join(data, source, now)
            case datagram.COOKIE:
                return self._open_cookie(data, source, now)
            case _:
                raise RemoteError(UNKNOWN_KIND)  # of the join handshake, not of a session

    def admit(
        self, data: bytes, source: UdpEndpoint, now: float
    ) -> tuple[bytes, tuple[Datagram, ...]]:
        """Return an admission's datagram without its macs; or nothing, and a cookie to send.

        Raises RemoteError for one that is dropped.
        """
        cookie = self._gate.check(self._cluster_key, 0, data, source, now)
        if cookie is not None:
            return b"", (Datagram(*source, cookie),)
        return data[:-MACS_SIZE], ()

    def _open_data(self, data: bytes, source: UdpEndpoint, now: float) -> OpenedDatagram:
        index, counter = session_header.read_data_header(data)
        found = self.table.session(index, now)
        if found is None:
            return self._answer_by_hello(self._peers.at(source), NO_SESSION, now)
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
            opened = self._established(link, session, None, now)
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

    def _answer_by_hello(self, card: Card | None, reason: str, now: float) -> OpenedDatagram:
        """Return a hello to the known address of a peer whose datagram no key opens.

        One of the two may have restarted. Raises RemoteError where there is no such peer.
        """
        if card is None:
            raise RemoteError(reason)
        link = self.table.link(card.node_id)
        has_session = self.table.sealing_session(link, now) is not None
        is_due = link.hello_due(now) and not (
            has_session and now - link.hello_at < limits.PROMPTED_HELLO_INTERVAL_S
        )
        if not is_due or not self._prompted.take(now):
            raise RemoteError(reason)
        replies = (self._hello(link, card, now),)
        return OpenedDatagram(card.node_id, dropped=reason, replies=replies)

    # --- handshakes ---------------------------------------------------------------------

    def _ask_for_proof(
        self, key: bytes, index: int, data: bytes, source: UdpEndpoint, now: float
    ) -> OpenedDatagram | None:
        """Return the cookie for a sender that must prove its address first; raises RemoteError."""
        cookie = self._gate.check(key, index, data, source, now)
        if cookie is None:
            return None
        return OpenedDatagram(NOBODY, dropped=COOKIE_SENT, replies=(Datagram(*source, cookie),))

    def _open_hello(self, data: bytes, source: UdpEndpoint, now: float) -> OpenedDatagram:
        index = session_header.short_index(data)
        asked = self._ask_for_proof(self._own_key, index, data, source, now)
        if asked is not None:
            return asked
        hello = self._maker.handshakes.open_hello(data[:-MACS_SIZE])
        if hello.seal_key == self._identity.seal_public:
            raise RemoteError(OWN_DATAGRAM)
        known = self._peers.by_seal_key(hello.seal_key)
        peer, _ = read_statement(self._signer, hello.body, known)
        node_id = peer.card.node_id
        if peer.card.seal_key != hello.seal_key or peer.number != index:
            raise RemoteError(BAD_CARD)
        if node_id in self._banned:
            return self._answer_banned(hello, peer, now)
        if node_id not in self._peers:
            require_in_force(peer.card, self._wall_clock())
        link = self.table.find(node_id)
        if link is not None and hello.ephemeral in link.hellos:
            raise RemoteError(REPLAYED)
        link = self._link_of(peer.card, now)
        link.hellos.append(hello.ephemeral)
        return OpenedDatagram(node_id, replies=(self._respond(link, hello, peer, now),))

    def _link_of(self, card: Card, now: float) -> Link:
        """Return the link with the sender of an unproven hello; of few unknown nodes at a time."""
        node_id = card.node_id
        if node_id in self._peers:
            self._peers.learn(card)
        else:
            displaced = self._newcomers.add(node_id, now)
            if displaced is not None:
                self.table.forget(displaced)
        return self.table.link(node_id)

    def _respond(self, link: Link, hello: OpenedHello, peer: Statement, now: float) -> Datagram:
        key = self.table.key_for(peer.held)
        index = self.table.new_index()
        keys, response = self._maker.response(index, hello, peer, key)
        self.table.answer(link, peer, key, keys, now, index)
        return response

    def _answer_banned(self, hello: OpenedHello, peer: Statement, now: float) -> OpenedDatagram:
        """Return the response that tells a forgotten node so; there is no session. Not often."""
        if not self._banned.may_notify(peer.card.node_id, now):
            raise RemoteError(BANNED)
        _, response = self._maker.response(0, hello, peer, None)
        return OpenedDatagram(peer.card.node_id, dropped=BANNED, replies=(response,))

    def _open_response(self, data: bytes, now: float) -> OpenedDatagram:
        header = session_header.read_response_header(data)
        found = self.table.handshake(header.receiver_index, now)
        if found is None:
            raise RemoteError(LATE_RESPONSE)
        link, handshake = found
        key = None if header.key is None else self._keyring.named(*header.key)
        if header.key is not None and key is None:
            raise RemoteError(UNKNOWN_GENERATION)
        psk = NO_CLUSTER_KEY if key is None else self._keyring.secret(key)
        try:
            body, keys = self._maker.handshakes.open_response(handshake.state, data, psk)
        except RemoteError:
            handshake.failure_count += 1
            if handshake.failure_count >= limits.HANDSHAKE_FAILURES_MAX:
                self.table.end_handshake(link, handshake)
            raise
        peer, is_banned = read_statement(self._signer, body, self._peers.get(link.node_id))
        if peer.card.node_id != link.node_id:
            raise RemoteError(BAD_CARD)
        if is_banned:
            self.table.end_handshake(link, handshake)
            return OpenedDatagram(link.node_id, is_banned=True)
        if peer.number != header.sender_index:
            raise RemoteError(BAD_CARD)
        session, meaning = self.table.complete(link, handshake, peer, key, keys, now)
        return self._established(link, session, meaning, now)

    def _established(
        self, link: Link, session: Session, completed: Establishment | None, now: float
    ) -> OpenedDatagram:
        """Use a session that was just proven; return what is sent under it first.

        `completed` is what it means, if a response has proven it: then a datagram under it must
        prove this side to the peer.
        """
        card = session.peer.card
        if link.node_id not in self._peers:
            self._peers.learn(card)
            self._newcomers.discard(link.node_id)
        meaning = completed or self.table.establish(link, session, now)
        if meaning is Establishment.DUPLICATE:
            return self._tell_duplicates(link, session, now)
        card = self._peers.learn(card)
        frames = []
        missing = self.table.missing_key(session)
        if missing is not None:
            frames.append(self._maker.seal_key(session, missing, card))
        sealing, waiting = self.table.take_waiting(link, now)
        if sealing is not None:
            frames += [self._maker.seal(sealing, FrameType.PAYLOAD, each, card) for each in waiting]
        if completed is not None and not frames:
            frames.append(self._maker.seal(session, FrameType.CONFIRM, b"", card))
        is_news = meaning is Establishment.CHANGED
        return OpenedDatagram(
            link.node_id, card=session.peer.card if is_news else None, replies=tuple(frames)
        )

    def _tell_duplicates(self, link: Link, session: Session, now: float) -> OpenedDatagram:
        """Return the notices to two hosts that use one identity; not often."""
        current, other = link.current, session.peer.card
        assert current is not None, "a duplicate is one beside the current process"
        replies: tuple[Datagram, ...] = ()
        if now - link.duplicate_notified_at >= limits.DUPLICATE_NOTICE_INTERVAL_S:
            link.duplicate_notified_at = now
            replies = (
                self._maker.duplicate_notice(session, current.peer.card),
                self._maker.duplicate_notice(current, other),
            )
        return OpenedDatagram(link.node_id, duplicate=other, replies=replies)

    # --- first contact ------------------------------------------------------------------

    def _open_join(self, data: bytes, source: UdpEndpoint, now: float) -> OpenedDatagram:
        asked = self._ask_for_proof(self._cluster_key, 0, data, source, now)
        if asked is not None:
            return asked
        sender, key, join = self._maker.contact.read(
            data[:-MACS_SIZE], self._signer, self._peers.get
        )
        if key is None or join is None:
            # One of the two missed a rotation: a hello to its known address shows which.
            return self._answer_by_hello(self._peers.get(sender), UNKNOWN_GENERATION, now)
        node_id = join.card.node_id
        if node_id in self._banned and not self._banned.may_notify(node_id, now):
            raise RemoteError(BANNED)
        if node_id not in self._peers and node_id not in self._banned:
            require_in_force(join.card, self._wall_clock())
        if join.echo == NO_PROCESS:
            # Answer to the address on its card, and keep no state.
            answer = self._maker.join(place_of(join.card), join.process, key, now)
            return OpenedDatagram(node_id, replies=(answer,))
        if join.echo != self._maker.process:
            raise RemoteError(REPLAYED)
        self.learn(join.card)
        card, link = self._peers.get(node_id), self.table.find(node_id)
        if card is None or (link is not None and not link.hello_due(now)):
            return OpenedDatagram(node_id)  # banned here, or greeted just before
        return OpenedDatagram(node_id, replies=(self._hello(self.table.link(node_id), card, now),))

    def _open_cookie(self, data: bytes, source: UdpEndpoint, now: float) -> OpenedDatagram:
        """Keep a cookie; repeat the hello that it answers, at once if none was kept before."""
        is_first = not self._maker.jar.has_cookie(source, now)
        if not self._maker.jar.accept(source, data, now):
            raise RemoteError(NO_COOKIE_ASKED)
        card = self._peers.at(source)
        link = None if card is None else self.table.find(card.node_id)
        # A peer that asks for cookies without end must not set the pace of hellos.
        is_due = link is not None and link.handshakes and (is_first or link.hello_due(now))
        if card is None or link is None or not is_due:
            return OpenedDatagram(NOBODY)
        return OpenedDatagram(card.node_id, replies=(self._hello(link, card, now),))
