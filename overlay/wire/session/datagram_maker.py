"""The datagrams that one process makes: hellos, responses, joins, and those of sessions.

Owns: what is in them. Does not: decide when one is sent, or keep sessions (`sessions`).
"""

from __future__ import annotations

from collections.abc import Callable

from overlay.core.protocol.records import KeyId
from overlay.model import Card
from overlay.wire.codec import session_header
from overlay.wire.codec.datagram import Datagram, UdpEndpoint
from overlay.wire.handshake.cookies import CookieJar, receiver_key
from overlay.wire.handshake.first_contact import FirstContact
from overlay.wire.handshake.handshake_maker import HandshakeMaker, OpenedHello
from overlay.wire.handshake.hello import PROCESS_SIZE, Join, Statement, duplicate_body, join_body
from overlay.wire.handshake.key_transfer import key_body
from overlay.wire.handshake.noise import Initiator, TransportKeys, nonce
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.keyring import Keyring
from overlay.wire.session.frames import FrameType, pack_frame
from overlay.wire.session.link import Session
from overlay.wire.session.peer_table import place_of


class DatagramMaker:
    """Makes the datagrams of one process."""

    def __init__(
        self,
        identity: Identity,
        cluster_id: bytes,
        keyring: Keyring,
        card: Card,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self.card = card
        self.process = random_bytes(PROCESS_SIZE)
        self.handshakes = HandshakeMaker(identity, cluster_id, random_bytes)
        self.contact = FirstContact(identity.node_id, cluster_id, keyring, random_bytes)
        self.jar = CookieJar()
        self._keyring = keyring
        self._cluster_key = receiver_key(cluster_id)

    def hello(self, index: int, to: Card, now: float) -> tuple[Initiator, Datagram]:
        """Return a hello to a peer, and what opens the response."""
        initiator, data = self.handshakes.hello(self._statement(index), to)
        place = place_of(to)
        protected = self.jar.protect(place, receiver_key(to.seal_key), data, now)
        return initiator, Datagram(*place, protected)

    def response(
        self, index: int, hello: OpenedHello, peer: Statement, key: KeyId | None
    ) -> tuple[TransportKeys, Datagram]:
        """Return the response to a hello, and the session's keys.

        Index 0 tells the peer that it is banned; there is no session then.
        """
        secret = None if key is None else (key, self._keyring.secret(key))
        keys, data = self.handshakes.response(
            hello.responder, self._statement(index), peer.number, secret, is_banned=not index
        )
        return keys, Datagram(*place_of(peer.card), data)

    def join(self, to: UdpEndpoint, echo: bytes, key: KeyId, now: float) -> Datagram:
        """Return a first contact, under a cluster key."""
        data = self.contact.seal(key, join_body(Join(self.process, echo, self.card)))
        return Datagram(*to, self.jar.protect(to, self._cluster_key, data, now))

    def seal(self, session: Session, kind: FrameType, content: bytes, to: Card) -> Datagram:
        """Return a frame within a session."""
        header = session_header.data_header(session.peer.number, session.counter)
        plain = pack_frame(kind, content)
        box = session.keys.sending.encrypt(nonce(session.counter), plain, header)
        session.counter += 1
        return Datagram(*place_of(to), header + box)

    def seal_key(self, session: Session, key: KeyId, to: Card) -> Datagram:
        """Return a cluster key within a session."""
        return self.seal(session, FrameType.KEY, key_body(self._keyring.key(key)), to)

    def duplicate_notice(self, session: Session, other: Card) -> Datagram:
        """Return the notice to a session's process that another host has its identity."""
        return self.seal(session, FrameType.DUPLICATE, duplicate_body(other), session.peer.card)

    def _statement(self, index: int) -> Statement:
        return Statement(index, self.process, self.card, self._keyring.ring.held)
