"""Datagrams that begin a session: hellos, their responses, first contacts and cookies.

Owns: which of them is answered, by what, and what is sent first under a session that was proven.
The checks are in order of their cost, and each names its drop counter; a sender that proves nothing
gets no answer but a cookie. Does not: know payloads.
"""

from __future__ import annotations

from overlay import limits
from overlay.errors import RemoteError
from overlay.model import Card
from overlay.wire.codec import session_header
from overlay.wire.codec.datagram import OWN_DATAGRAM, Datagram, UdpEndpoint
from overlay.wire.handshake.cookies import MACS_SIZE, receiver_key
from overlay.wire.handshake.first_contact import UNKNOWN_GENERATION
from overlay.wire.handshake.handshake_maker import NO_CLUSTER_KEY, OpenedHello
from overlay.wire.handshake.hello import (
    BAD_CARD,
    NO_PROCESS,
    Statement,
    read_statement,
    require_in_force,
)
from overlay.wire.session.banned_peers import BANNED
from overlay.wire.session.context import SessionContext
from overlay.wire.session.frames import FrameType
from overlay.wire.session.hello_sender import HelloSender
from overlay.wire.session.link import Establishment, Link, Session
from overlay.wire.session.opened_datagram import (
    COOKIE_SENT,
    LATE_RESPONSE,
    NO_COOKIE_ASKED,
    NOBODY,
    REPLAYED,
    OpenedDatagram,
)
from overlay.wire.session.peer_table import place_of


class HandshakeReceiver:
    """Opens the datagrams of handshakes with one process."""

    def __init__(self, context: SessionContext, hellos: HelloSender) -> None:
        self._context = context
        self._hellos = hellos
        self._identity, self._signer = context.identity, context.signer
        self._keyring, self._wall_clock = context.keyring, context.wall_clock
        self._maker, self._gate, self._table = context.maker, context.gate, context.table
        self._peers, self._banned = context.peers, context.banned
        self._newcomers = context.newcomers
        self._own_key = receiver_key(context.identity.seal_public)
        self._cluster_key = receiver_key(context.signer.anchor.cluster_id)

    # --- hellos -------------------------------------------------------------------------

    def _ask_for_proof(
        self, key: bytes, index: int, data: bytes, source: UdpEndpoint, now: float
    ) -> OpenedDatagram | None:
        """Return the cookie for a sender that must prove its address first; raises RemoteError."""
        cookie = self._gate.check(key, index, data, source, now)
        if cookie is None:
            return None
        return OpenedDatagram(NOBODY, dropped=COOKIE_SENT, replies=(Datagram(*source, cookie),))

    def open_hello(self, data: bytes, source: UdpEndpoint, now: float) -> OpenedDatagram:
        """Return the response to a hello, with which its sender is not proven yet."""
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
        link = self._table.find(node_id)
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
                self._table.forget(displaced)
        return self._table.link(node_id)

    def _respond(self, link: Link, hello: OpenedHello, peer: Statement, now: float) -> Datagram:
        key = self._table.key_for(peer.held)
        index = self._table.new_index()
        keys, response = self._maker.response(index, hello, peer, key)
        self._table.answer(link, peer, key, keys, now, index)
        return response

    def _answer_banned(self, hello: OpenedHello, peer: Statement, now: float) -> OpenedDatagram:
        """Return the response that tells a forgotten node so; there is no session. Not often."""
        if not self._banned.may_notify(peer.card.node_id, now):
            raise RemoteError(BANNED)
        _, response = self._maker.response(0, hello, peer, None)
        return OpenedDatagram(peer.card.node_id, dropped=BANNED, replies=(response,))

    # --- responses ----------------------------------------------------------------------

    def open_response(self, data: bytes, now: float) -> OpenedDatagram:
        """Return what is sent first under the session that a response completes."""
        header = session_header.read_response_header(data)
        found = self._table.handshake(header.receiver_index, now)
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
                self._table.end_handshake(link, handshake)
            raise
        peer, is_banned = read_statement(self._signer, body, self._peers.get(link.node_id))
        if peer.card.node_id != link.node_id:
            raise RemoteError(BAD_CARD)
        if is_banned:
            self._table.end_handshake(link, handshake)
            return OpenedDatagram(link.node_id, is_banned=True)
        if peer.number != header.sender_index:
            raise RemoteError(BAD_CARD)
        session, meaning = self._table.complete(link, handshake, peer, key, keys, now)
        return self.established(link, session, meaning, now)

    def established(
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
        meaning = completed or self._table.establish(link, session, now)
        if meaning is Establishment.DUPLICATE:
            return self._tell_duplicates(link, session, now)
        card = self._peers.learn(card)
        frames = []
        missing = self._table.missing_key(session)
        if missing is not None:
            frames.append(self._maker.seal_key(session, missing, card))
        sealing, waiting = self._table.take_waiting(link, now)
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

    def open_join(self, data: bytes, source: UdpEndpoint, now: float) -> OpenedDatagram:
        """Return the answer to a first contact, or the hello that follows the answer to one."""
        asked = self._ask_for_proof(self._cluster_key, 0, data, source, now)
        if asked is not None:
            return asked
        sender, key, join = self._maker.contact.read(
            data[:-MACS_SIZE], self._signer, self._peers.get
        )
        if key is None or join is None:
            # One of the two missed a rotation: a hello to its known address shows which.
            return self._hellos.prompted(self._peers.get(sender), UNKNOWN_GENERATION, now)
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
        self._context.learn(join.card)
        card, link = self._peers.get(node_id), self._table.find(node_id)
        if card is None or (link is not None and not link.hello_due(now)):
            return OpenedDatagram(node_id)  # banned here, or greeted just before
        hello = self._hellos.hello(self._table.link(node_id), card, now)
        return OpenedDatagram(node_id, replies=(hello,))

    def open_cookie(self, data: bytes, source: UdpEndpoint, now: float) -> OpenedDatagram:
        """Keep a cookie; repeat the hello that it answers, at once if none was kept before."""
        is_first = not self._maker.jar.has_cookie(source, now)
        if not self._maker.jar.accept(source, data, now):
            raise RemoteError(NO_COOKIE_ASKED)
        card = self._peers.at(source)
        link = None if card is None else self._table.find(card.node_id)
        # A peer that asks for cookies without end must not set the pace of hellos.
        is_due = link is not None and link.handshakes and (is_first or link.hello_due(now))
        if card is None or link is None or not is_due:
            return OpenedDatagram(NOBODY)
        return OpenedDatagram(card.node_id, replies=(self._hellos.hello(link, card, now),))
