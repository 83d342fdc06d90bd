"""Sealed sessions with every peer: sans-IO, datagrams in, datagrams out.

Owns: the handshake. Each process draws a random session at its start. A peer's session is
accepted only from a hello that echoes this node's own, which no recording can do; until then
hellos are answered, and nothing else. A sender that can't authenticate never gets an answer.
`open` orders its checks by cost, and each names its drop counter.

Payloads are sealed under the cluster key in use, or under an older common one for a peer whose
hello says that it lacks that key, until it has been sent it. `core.keys.rotation` decides which
key is in use and when one is dropped; `keys_changed` applies that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace

from overlay import limits
from overlay.core.protocol.records import KeyId
from overlay.errors import RemoteError
from overlay.model import Card, Ip, NodeId
from overlay.wire.codec import datagram
from overlay.wire.codec.datagram import (
    DATA,
    HELLO,
    JOIN,
    KEY,
    OWN_DATAGRAM,
    UNKNOWN_KIND,
    Datagram,
    Header,
)
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.keyring import ClusterKey, Keyring
from overlay.wire.identity.signatures import KeySigner
from overlay.wire.session import notices
from overlay.wire.session.barred_peers import BannedPeers
from overlay.wire.session.hello import BAD_CARD, SessionHello, hello_body, read_hello
from overlay.wire.session.key_transfer import UNWARRANTED_KEY, key_body, read_key_body
from overlay.wire.session.peer_table import PeerTable
from overlay.wire.session.peers import NEVER, NO_SESSION, SESSION_SIZE, Channel, Peer
from overlay.wire.session.sealer import PAIRWISE, UNKNOWN_GENERATION, Sealer

HELLO_INTERVAL_S = 0.1  # minimum between hellos to a peer, whatever the reason
UNRESPONSIVE_HELLO_INTERVAL_S = 1.0
SESSION_ALIVE_S = 3.0  # after anything was opened with it: probes come about every second
PREVIOUS_KEPT_S = 5.0  # how long the replaced session still opens datagrams

UNKNOWN_SENDER = "unknown-sender"
NO_CHANNEL = "no-session"
REPLAYED = "replayed"
CERTIFICATE_EXPIRED = "certificate-expired"


@dataclass(frozen=True, slots=True)
class OpenedDatagram:
    """The content of an authenticated datagram."""

    sender: NodeId
    payload: bytes | None = None
    card: Card | None = None  # of a peer whose session was just accepted
    key: ClusterKey | None = None  # sent by a member, signed by the authority
    duplicate: Card | None = None  # of another host with the sender's identity, or ours
    dropped: str = ""  # the reason why there is no payload, although there are replies
    is_banned: bool = False  # the sender reports that this node is forgotten, and ignored
    replies: tuple[Datagram, ...] = ()


class Sessions:
    """All sessions of one process.

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
        self._keyring = keyring
        self._card = card
        self._session = random_bytes(SESSION_SIZE)
        self._sealer = Sealer(
            identity, signer.anchor.cluster_id, keyring, random_bytes, self._session
        )
        self._wall_clock = wall_clock
        self._signer = signer
        self._peers = PeerTable(identity)
        self._banned = BannedPeers(self._sealer, signer, self._join_answer)
        self._in_use = keyring.sealing
        self.queue_drop_count = 0
        self.accepted: Counter[KeyId] = Counter()  # payloads, by the key that sealed them

    # --- peers --------------------------------------------------------------------------

    def learn(self, card: Card) -> None:
        """Add a peer from a verified card, or update its address."""
        if card.node_id == self._identity.node_id:
            return
        if card.node_id in self._banned:
            self._banned.add(card.node_id, self._peers.peer_of(card))  # to send it a notice
        else:
            self._peers.learn(card)

    def set_card(self, card: Card) -> None:
        """Use a renewed card of this node from now on."""
        self._card = card

    def forget(self, node_id: NodeId) -> None:
        """Bar an identity: its datagrams are dropped and answered by notices."""
        self._banned.add(node_id, self._peers.remove(node_id))

    def mark_unresponsive(self, node_id: NodeId) -> None:
        """Note that a peer does not answer, until it does.

        It may have restarted from a disk that has a former address of this node: it sends its
        hello there when it can't open a datagram, and only a hello with the present card can
        correct it.
        """
        peer = self._peers.get(node_id)
        if peer is not None:
            peer.is_unresponsive = True

    def is_member_address(self, address: Ip) -> bool:
        """Return whether any peer has an address."""
        return self._peers.is_address(address)

    def established(self, node_id: NodeId) -> bool:
        """Return whether payloads to a node can be sealed now."""
        peer = self._peers.get(node_id)
        return peer is not None and peer.channel is not None

    def keys_changed(self, now: float) -> list[Datagram]:
        """Apply a change of the keyring.

        Returns the payloads that waited for a key, and hellos to peers that lack the key in use.
        """
        ring = self._keyring.ring
        is_new_in_use, self._in_use = ring.sealing != self._in_use, ring.sealing
        sent: list[Datagram] = []
        for peer in self._peers:
            peer.forget_keys(ring.held)
            if is_new_in_use:
                peer.held = None  # all live nodes hold it; a peer that does not will say so
            elif peer.held is not None and ring.sealing not in peer.held:
                sent += self._hello(peer, now)
            sent += self._release_waiting(peer)
        return sent

    # --- sending ------------------------------------------------------------------------

    def seal(self, to: NodeId, payload: bytes, now: float) -> list[Datagram]:
        """Return the datagrams for a payload.

        Without a session, or a key that the peer holds, it is queued and a hello goes out.
        """
        peer = self._peers.get(to)
        if peer is None:
            return []
        key = self._key_for(peer)
        if peer.channel is None or key is None:
            if len(peer.waiting) == peer.waiting.maxlen:
                self.queue_drop_count += 1
            peer.waiting.append(payload)
            return self._hello(peer, now)
        sealed = self._to(peer, self._sealer.data(peer, peer.channel, key, payload))
        if peer.is_unresponsive and now - peer.hello_at >= UNRESPONSIVE_HELLO_INTERVAL_S:
            return [*self._hello(peer, now), sealed]
        return [sealed]

    def first_hello(self, address: Ip, port: int, _now: float) -> list[Datagram]:
        """Return a first contact to an address of an unknown node."""
        return [self._join(address, port, NO_SESSION, self._keyring.sealing, done=False)]

    def send_key(self, to: NodeId, now: float) -> list[Datagram]:
        """Return the newest key for a peer; without a session, a hello."""
        peer = self._peers.get(to)
        if peer is None:
            return []
        if peer.channel is None:
            return self._hello(peer, now)
        return [self._key(peer, peer.channel, self._keyring.ring.newest)]

    def _key_for(self, peer: Peer) -> KeyId | None:
        """Return the key to seal with for a peer, or None if none is common."""
        return self._keyring.ring.for_peer(peer.held)

    def _release_waiting(self, peer: Peer) -> list[Datagram]:
        """Return the queued payloads, sealed, if they can be now."""
        key, channel = self._key_for(peer), peer.channel
        if channel is None or key is None:
            return []
        waiting = list(peer.waiting)
        peer.waiting.clear()
        return [self._to(peer, self._sealer.data(peer, channel, key, each)) for each in waiting]

    def _hello(self, peer: Peer, now: float) -> list[Datagram]:
        """Return a hello to a known peer, or nothing if one went just before."""
        is_met = peer.channel is not None and peer.channel.peer_session == peer.claimed
        done = is_met and self._key_for(peer) is not None
        # A peer with a session but no common key may be unable to store it: a full disk, say.
        pause_s = HELLO_INTERVAL_S if done or not is_met else UNRESPONSIVE_HELLO_INTERVAL_S
        if now - peer.hello_at < pause_s:
            return []
        peer.hello_at = now
        body = hello_body(SessionHello(self._session, peer.claimed, done, self._card, self._held()))
        hello = self._to(peer, self._sealer.to_pair(HELLO, peer, body))
        if not peer.is_unresponsive or peer.channel is not None:
            return [hello]
        # It may not know this node, if the member that admitted this node died before telling
        # others: then it can't open this hello, and no other node may know both.
        return [hello, *self.first_hello(peer.card.address, peer.card.gossip_port, now)]

    def _join(self, address: Ip, port: int, echo: bytes, key: KeyId, *, done: bool) -> Datagram:
        body = hello_body(SessionHello(self._session, echo, done, self._card, self._held()))
        return Datagram(address, port, self._sealer.join(key, body))

    def _join_answer(self, hello: SessionHello, key: KeyId) -> Datagram:
        return self._join(hello.card.address, hello.card.gossip_port, hello.session, key, done=True)

    def _key(self, peer: Peer, channel: Channel, key: KeyId) -> Datagram:
        body = key_body(channel.peer_session, self._keyring.key(key))
        return self._to(peer, self._sealer.to_pair(KEY, peer, body))

    def _held(self) -> tuple[KeyId, ...]:
        return tuple(sorted(self._keyring.ring.held))

    @staticmethod
    def _to(peer: Peer, data: bytes) -> Datagram:
        return Datagram(peer.card.address, peer.card.gossip_port, data)

    # --- receiving ----------------------------------------------------------------------

    def open(self, header: Header, data: bytes, now: float) -> OpenedDatagram:
        """Return a datagram's content; raises RemoteError to drop it."""
        if header.sender == self._identity.node_id:
            raise RemoteError(OWN_DATAGRAM)
        peer = self._peers.get(header.sender)
        if header.sender in self._banned:
            return OpenedDatagram(header.sender, replies=self._banned.notice_for(header, data, now))
        if header.kind in (DATA, JOIN):
            return self._open_under_key(peer, header, data, now)
        if header.kind not in PAIRWISE:
            raise RemoteError(UNKNOWN_KIND)  # of the join handshake, not of a session
        if peer is None:
            raise RemoteError(UNKNOWN_SENDER)
        body = self._sealer.open_pair(peer, header, data)
        if header.kind == HELLO:
            return self._open_hello(peer, header, body, now)
        if header.kind == KEY:
            return self._open_key(header.sender, body)
        return self._open_notice(header.sender, body)

    def _open_under_key(
        self, peer: Peer | None, header: Header, data: bytes, now: float
    ) -> OpenedDatagram:
        key = self._keyring.key_of_header(header)
        if key is None:
            if peer is None:
                raise RemoteError(UNKNOWN_GENERATION)
            # One of the two missed a rotation: a hello to its known address shows which.
            replies = tuple(self._hello(peer, now))
            return OpenedDatagram(header.sender, replies=replies, dropped=UNKNOWN_GENERATION)
        if header.kind == JOIN:
            return self._open_join(key, header, data, now)
        if peer is None:
            raise RemoteError(UNKNOWN_SENDER)
        return self._open_data(peer, key, header, data, now)

    def _open_data(
        self, peer: Peer, key: KeyId, header: Header, data: bytes, now: float
    ) -> OpenedDatagram:
        for channel in (peer.channel, peer.previous):
            if channel is None or (channel is peer.previous and now > peer.previous_until):
                continue
            try:
                payload = self._sealer.open_data(peer, channel, key, header, data)
            except RemoteError:
                continue
            if not channel.window.accept(header.number):
                raise RemoteError(REPLAYED)
            channel.heard_at = now
            peer.is_unresponsive = False
            self._count(key)
            if peer.held is None or key in peer.held:
                return OpenedDatagram(header.sender, payload=payload)
            peer.held.add(key)  # it has received the key
            return OpenedDatagram(
                header.sender, payload=payload, replies=tuple(self._release_waiting(peer))
            )
        # One of the two may have restarted: a hello to the known address, not to the source.
        reason = NO_CHANNEL if peer.channel is None else datagram.UNAUTHENTICATED
        return OpenedDatagram(header.sender, replies=tuple(self._hello(peer, now)), dropped=reason)

    def _count(self, key: KeyId) -> None:
        self.accepted[key] += 1
        if len(self.accepted) > limits.KEYS_COUNTED_MAX:
            del self.accepted[min(self.accepted)]

    def _open_notice(self, sender: NodeId, body: bytes) -> OpenedDatagram:
        """Return a peer's report about this node, for people to read."""
        if body == notices.FORGOTTEN:
            return OpenedDatagram(sender, is_banned=True)
        session, other = notices.read_duplicate(body)
        if session != self._session:
            raise RemoteError(REPLAYED)
        if other.node_id != self._identity.node_id or not self._signer.is_signed_by_subject(other):
            raise RemoteError(BAD_CARD)
        return OpenedDatagram(sender, duplicate=other)

    def _open_key(self, sender: NodeId, body: bytes) -> OpenedDatagram:
        """Return a cluster key sent by a peer; the owner decides about it."""
        session, key = read_key_body(body)
        if session != self._session:
            raise RemoteError(REPLAYED)
        if not self._signer.anchor.verify_key(key):
            raise RemoteError(UNWARRANTED_KEY)
        return OpenedDatagram(sender, key=key)

    def _open_hello(self, peer: Peer, header: Header, body: bytes, now: float) -> OpenedDatagram:
        hello = read_hello(header.sender, self._signer, body)
        self._reject_recording(peer, header)
        opened = self._accept_hello(peer, hello, now)
        if hello.echo == self._session:
            opened = replace(opened, replies=(*opened.replies, *self._missing_key(peer)))
            if hello.done and self._key_for(peer) is not None:
                return opened
        if opened.card is not None:
            peer.hello_at = NEVER  # answer a new session at once
        return replace(opened, replies=(*self._hello(peer, now), *opened.replies))

    def _missing_key(self, peer: Peer) -> list[Datagram]:
        """Return the key in use for a peer that lacks it.

        Of two that share no key, the one that seals with the lesser key accepts the other's.
        """
        sealing = self._keyring.sealing
        if peer.channel is None or peer.held is None or sealing in peer.held:
            return []
        return [self._key(peer, peer.channel, sealing)]

    def _open_join(self, key: KeyId, header: Header, data: bytes, now: float) -> OpenedDatagram:
        hello = read_hello(header.sender, self._signer, self._sealer.open_join(key, header, data))
        peer = self._peers.get(header.sender)
        if peer is None:
            self._require_in_force(hello.card)
        if hello.echo != self._session:
            # Not proven fresh: answer to the address on its card, and keep no state.
            if peer is not None and now - peer.hello_at < HELLO_INTERVAL_S:
                return OpenedDatagram(header.sender)
            if peer is not None:
                peer.hello_at = now
            reply = self._join(
                hello.card.address, hello.card.gossip_port, hello.session, key, done=False
            )
            return OpenedDatagram(header.sender, replies=(reply,))
        if peer is None:
            peer = self._peers.learn(hello.card)
        self._reject_recording(peer, header)
        opened = self._accept_hello(peer, hello, now)
        if hello.done:
            return opened
        # The other side may not know this node yet, so the answer is a first contact too.
        return replace(opened, replies=(self._join_answer(hello, key), *opened.replies))

    def _require_in_force(self, card: Card) -> None:
        certificate = card.certificate
        assert certificate is not None, "a hello's card is certified"
        if not certificate.not_before_s <= self._wall_clock() < certificate.not_after_s:
            raise RemoteError(CERTIFICATE_EXPIRED)

    @staticmethod
    def _reject_recording(peer: Peer, header: Header) -> None:
        nonce = (header.counter, header.random)
        if nonce in peer.hellos:
            raise RemoteError(REPLAYED)
        peer.hellos.append(nonce)

    def _accept_hello(self, peer: Peer, hello: SessionHello, now: float) -> OpenedDatagram:
        """Record a hello's claims; accept its session if it is fresh and new."""
        sender = peer.card.node_id
        if hello.session in peer.retired:
            return self._handle_retired(peer, hello, now)
        self.learn(hello.card)
        peer.claimed = hello.session
        if hello.echo != self._session:
            return OpenedDatagram(sender)
        peer.held = set(hello.held)
        if peer.channel is not None and peer.channel.peer_session == hello.session:
            return OpenedDatagram(sender, replies=tuple(self._release_waiting(peer)))
        replies = tuple(self._use(peer, Channel(hello.session), now))
        return OpenedDatagram(sender, card=hello.card, replies=replies)

    def _handle_retired(self, peer: Peer, hello: SessionHello, now: float) -> OpenedDatagram:
        """Handle a hello from a session that another one has replaced.

        If the other one is silent, its hello was late, from an earlier process: the channel of
        this one is restored with its keys and counters, as they were used. If it is live, two
        hosts use one identity (a copied disk), and both are notified.
        """
        sender, channel = peer.card.node_id, peer.channel
        if hello.echo != self._session or channel is None:
            return OpenedDatagram(sender)
        if now - channel.heard_at > SESSION_ALIVE_S:
            self.learn(hello.card)
            peer.claimed, peer.held = hello.session, set(hello.held)
            back = peer.retired.pop(hello.session)
            return OpenedDatagram(
                sender, card=hello.card, replies=tuple(self._use(peer, back, now))
            )
        return self._duplicate_notices(peer, hello, channel.peer_session, now)

    def _duplicate_notices(
        self, peer: Peer, hello: SessionHello, session: bytes, now: float
    ) -> OpenedDatagram:
        sender, present = peer.card.node_id, peer.card
        is_same_host = (hello.card.address, hello.card.gossip_port) == (
            present.address,
            present.gossip_port,
        )
        if is_same_host or now - peer.duplicate_notified_at < notices.INTERVAL_S:
            return OpenedDatagram(sender)
        peer.duplicate_notified_at = now
        replies = (
            notices.notice(
                self._sealer, peer, hello.card, notices.duplicate_body(hello.session, present)
            ),
            notices.notice(
                self._sealer, peer, present, notices.duplicate_body(session, hello.card)
            ),
        )
        return OpenedDatagram(sender, duplicate=hello.card, replies=replies)

    def _use(self, peer: Peer, channel: Channel, now: float) -> list[Datagram]:
        """Switch to another session; return the payloads queued for one."""
        peer.retire()
        if peer.channel is not None:
            peer.previous, peer.previous_until = peer.channel, now + PREVIOUS_KEPT_S
        peer.is_unresponsive = False
        peer.channel = channel
        return self._release_waiting(peer)
