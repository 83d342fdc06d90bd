"""Sealed sessions with every peer: sans-IO, datagrams in, datagrams out.

Owns the handshake. Each process start draws a random session. A peer's session is accepted
only from a hello that echoes our own, which no recording can do; until then it is answered and
nothing else. Whoever can't authenticate gets no answer, ever. `receive` is a ladder: the cheap
checks first, each rung with the name of its drop counter.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

from overlay import limits
from overlay.errors import RemoteError
from overlay.model import Card, Ip, NodeId
from overlay.wire import envelope, notices
from overlay.wire.envelope import DATA, HELLO, JOIN, NOTICE, Header
from overlay.wire.hello import BAD_CARD, Hello, hello_body, read_hello
from overlay.wire.identity import Identity
from overlay.wire.keyring import Keyring
from overlay.wire.notary import KeyNotary
from overlay.wire.peers import (
    NEVER,
    NO_SESSION,
    SESSION_SIZE,
    Channel,
    Peer,
    hello_key,
    join_key,
    make_channel,
    notice_key,
)

HELLO_INTERVAL_S = 0.1  # at most one hello to a peer in this time, whatever provokes it
DOUBTFUL_HELLO_INTERVAL_S = 1.0
NOTICE_INTERVAL_S = 1.0  # how often a barred node, or one that has a rival, is told so
SESSION_ALIVE_S = 3.0  # after anything was opened with it: probes come every second or so
PREVIOUS_KEPT_S = 5.0  # how long what was sealed before a renewal is still opened
_NOBODY = bytes(16)

OWN_DATAGRAM = "own-datagram"
UNKNOWN_SENDER = "unknown-sender"
UNKNOWN_GENERATION = "unknown-generation"
NO_CHANNEL = "no-session"
REPLAYED = "replayed"
BARRED = "barred"
CERTIFICATE_EXPIRED = "certificate-expired"
TOO_MANY_PEERS = "too-many-peers"


class Datagram(NamedTuple):
    """Bytes for an address."""

    address: Ip
    port: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Opened:
    """What an authenticated datagram brought."""

    sender: NodeId
    payload: bytes | None = None
    card: Card | None = None  # of a peer whose session has just been accepted
    rival: Card | None = None  # of another host under the sender's identity, or under ours
    dropped: str = ""  # why there is no payload, where an answer goes out all the same
    is_barred: bool = False  # the sender says that we are: forgotten, and not heard any more
    replies: tuple[Datagram, ...] = ()


@dataclass(slots=True)
class _Barred:
    """A forgotten node: what it takes to tell it so, if its keys were known."""

    peer: Peer | None
    told_at: float = NEVER


class Sessions:
    """All sessions of one process. `wall_clock` is Unix time: whether a certificate is in force
    is asked of strangers only."""

    def __init__(
        self,
        identity: Identity,
        notary: KeyNotary,
        keyring: Keyring,
        card: Card,
        random_bytes: Callable[[int], bytes],
        wall_clock: Callable[[], float],
    ) -> None:
        self._identity = identity
        self._cluster_id = notary.anchor.cluster_id
        self._keyring = keyring
        self._card = card
        self._random_bytes = random_bytes
        self._session = random_bytes(SESSION_SIZE)
        self._wall_clock = wall_clock
        self._notary = notary
        self._peers: dict[NodeId, Peer] = {}
        self._addresses: Counter[Ip] = Counter()  # of the peers
        self._barred: dict[NodeId, _Barred] = {}
        self.queue_drop_count = 0

    # --- who there is -------------------------------------------------------------------

    def learn(self, card: Card) -> None:
        """Take note of a verified card: a new peer, or a known one's new address."""
        if card.node_id == self._identity.node_id or card.node_id in self._barred:
            return
        known = self._peers.get(card.node_id)
        if known is not None:
            if card.epoch >= known.card.epoch:
                self._addresses.subtract([known.card.address])
                self._addresses.update([card.address])
                known.card = card
            return
        if len(self._peers) >= limits.MEMBER_COUNT_MAX:
            raise RemoteError(TOO_MANY_PEERS)
        try:
            shared = self._identity.agree(card.seal_key)
        except ValueError:
            raise RemoteError(BAD_CARD) from None
        self._peers[card.node_id] = Peer(card, shared)
        self._addresses.update([card.address])

    def set_card(self, card: Card) -> None:
        """Use a renewed card of our own from now on."""
        self._card = card

    def forget(self, node_id: NodeId) -> None:
        """Bar an identity: nothing it says is heard any more, and all it hears is that."""
        peer = self._peers.pop(node_id, None)
        if peer is not None:
            self._addresses.subtract([peer.card.address])
        self._barred.setdefault(node_id, _Barred(peer))

    def doubt(self, node_id: NodeId) -> None:
        """Note that a peer does not answer, until it does.

        It may have restarted from a disk that knows us at a former address: what it cannot open
        makes it greet us there, and only a hello with our present card can tell it better.
        """
        peer = self._peers.get(node_id)
        if peer is not None:
            peer.is_doubted = True

    def is_member_address(self, address: Ip) -> bool:
        """Say whether any peer lives at an address."""
        return self._addresses[address] > 0

    def established(self, node_id: NodeId) -> bool:
        """Say whether payloads to a node can be sealed now."""
        peer = self._peers.get(node_id)
        return peer is not None and peer.channel is not None

    # --- out ----------------------------------------------------------------------------

    def seal(self, to: NodeId, payload: bytes, now: float) -> list[Datagram]:
        """Return what to send for a payload; without a session it waits behind a hello."""
        peer = self._peers.get(to)
        if peer is None:
            return []
        if peer.channel is None:
            if len(peer.waiting) == peer.waiting.maxlen:
                self.queue_drop_count += 1
            peer.waiting.append(payload)
            return self._hello(peer, now)
        sealed = self._sealed(peer, peer.channel, payload)
        if peer.is_doubted and now - peer.hello_at >= DOUBTFUL_HELLO_INTERVAL_S:
            return [*self._hello(peer, now), sealed]
        return [sealed]

    def greet(self, address: Ip, port: int, _now: float) -> list[Datagram]:
        """Return a first contact to an address of which nothing is known."""
        return [self._join(address, port, NO_SESSION, done=False)]

    def _sealed(self, peer: Peer, channel: Channel, payload: bytes) -> Datagram:
        header = Header(
            envelope.VERSION,
            DATA,
            channel.generation,
            self._identity.node_id,
            channel.counter,
            self._random_bytes(4),
        )
        channel.counter += 1
        data = envelope.seal(channel.sending, header, self._context(peer.card.node_id), payload)
        return Datagram(peer.card.address, peer.card.gossip_port, data)

    def _hello(self, peer: Peer, now: float) -> list[Datagram]:
        """Return a hello to a known peer, or nothing if one went a moment ago."""
        if now - peer.hello_at < HELLO_INTERVAL_S:
            return []
        peer.hello_at = now
        generation = self._keyring.sealing
        secret = self._keyring.secret(generation)
        assert secret is not None, "a keyring has the secret it seals with"
        other = peer.card.node_id
        key = hello_key(peer.shared, secret, self._identity.node_id, other)
        echo = peer.claimed
        done = peer.channel is not None and peer.channel.peer_session == echo
        data = envelope.seal(
            key, self._random_header(HELLO, generation), self._context(other),
            hello_body(Hello(self._session, echo, done, self._card)),
        )  # fmt: skip
        return [Datagram(peer.card.address, peer.card.gossip_port, data)]

    def _join(self, address: Ip, port: int, echo: bytes, *, done: bool) -> Datagram:
        generation = self._keyring.sealing
        secret = self._keyring.secret(generation)
        assert secret is not None, "a keyring has the secret it seals with"
        data = envelope.seal(
            join_key(secret), self._random_header(JOIN, generation), self._context(_NOBODY),
            hello_body(Hello(self._session, echo, done, self._card)),
        )  # fmt: skip
        return Datagram(address, port, data)

    def _random_header(self, kind: int, generation: int) -> Header:
        """Handshake keys outlive a process, so their whole nonce is drawn at random."""
        counter = int.from_bytes(self._random_bytes(8), "big")
        own = self._identity.node_id
        return Header(envelope.VERSION, kind, generation, own, counter, self._random_bytes(4))

    def _context(self, recipient: bytes) -> bytes:
        return self._cluster_id + recipient

    # --- in -----------------------------------------------------------------------------

    def open(self, data: bytes, now: float) -> Opened:
        """Return what a datagram brought; raises RemoteError with the reason of its drop."""
        header = envelope.read_header(data)
        if header.sender == self._identity.node_id:
            raise RemoteError(OWN_DATAGRAM)
        if header.kind == NOTICE:
            return self._open_notice(header, data)
        secret = self._keyring.secret(header.generation)
        if secret is None:
            raise RemoteError(UNKNOWN_GENERATION)
        barred = self._barred.get(header.sender)
        if barred is not None:
            return self._tell_barred(barred, header, secret, data, now)
        if header.kind == JOIN:
            return self._open_join(header, secret, data, now)
        peer = self._peers.get(header.sender)
        if peer is None:
            raise RemoteError(UNKNOWN_SENDER)
        if header.kind == HELLO:
            return self._open_hello(peer, header, secret, data, now)
        return self._open_data(peer, header, data, now)

    def _open_data(self, peer: Peer, header: Header, data: bytes, now: float) -> Opened:
        context = self._context(self._identity.node_id)
        for channel in (peer.channel, peer.previous):
            if channel is None or channel.generation != header.generation:
                continue
            if channel is peer.previous and now > peer.previous_until:
                continue
            try:
                payload = envelope.open_box(channel.receiving, header, context, data)
            except RemoteError:
                continue
            if not channel.window.accept(header.counter):
                raise RemoteError(REPLAYED)
            channel.heard_at = now
            peer.is_doubted = False
            return Opened(header.sender, payload=payload)
        # It may have restarted, or we have: a hello to where it lives, not to where this is from.
        reason = NO_CHANNEL if peer.channel is None else envelope.UNAUTHENTICATED
        return Opened(header.sender, replies=tuple(self._hello(peer, now)), dropped=reason)

    def _tell_barred(
        self, barred: _Barred, header: Header, secret: bytes, data: bytes, now: float
    ) -> Opened:
        """Tell a barred node that it is, when it proves to be that node; not often."""
        peer = barred.peer
        if peer is None or now - barred.told_at < NOTICE_INTERVAL_S:
            raise RemoteError(BARRED)
        own = self._identity.node_id
        if header.kind == DATA:
            if peer.channel is None:
                raise RemoteError(BARRED)
            envelope.open_box(peer.channel.receiving, header, self._context(own), data)
            card = peer.card
        else:
            is_join = header.kind == JOIN
            key = (
                join_key(secret) if is_join else hello_key(peer.shared, secret, header.sender, own)
            )
            context = self._context(_NOBODY if is_join else own)
            card = read_hello(
                header.sender, self._notary, envelope.open_box(key, header, context, data)
            ).card
        barred.told_at = now
        return Opened(header.sender, replies=(self._notice(peer, card, notices.FORGOTTEN),))

    def _notice(self, peer: Peer, to: Card, body: bytes) -> Datagram:
        own, other = self._identity.node_id, peer.card.node_id
        key = notice_key(peer.shared, own, other)
        data = envelope.seal(key, self._random_header(NOTICE, 0), self._context(other), body)
        return Datagram(to.address, to.gossip_port, data)

    def _open_notice(self, header: Header, data: bytes) -> Opened:
        """Take a peer's word on how it sees us. It changes nothing: people should read it."""
        peer = self._peers.get(header.sender)
        if peer is None:
            raise RemoteError(UNKNOWN_SENDER)
        own = self._identity.node_id
        key = notice_key(peer.shared, header.sender, own)
        body = envelope.open_box(key, header, self._context(own), data)
        if body == notices.FORGOTTEN:
            return Opened(header.sender, is_barred=True)
        session, rival = notices.read_rival(body)
        if session != self._session:
            raise RemoteError(REPLAYED)
        if rival.node_id != own or not self._notary.is_own_word(rival):
            raise RemoteError(BAD_CARD)
        return Opened(header.sender, rival=rival)

    def _open_hello(
        self, peer: Peer, header: Header, secret: bytes, data: bytes, now: float
    ) -> Opened:
        key = hello_key(peer.shared, secret, header.sender, self._identity.node_id)
        context = self._context(self._identity.node_id)
        hello = read_hello(
            header.sender, self._notary, envelope.open_box(key, header, context, data)
        )
        self._refuse_recording(peer, header)
        opened = self._take_hello(peer, hello, now)
        if hello.done and hello.echo == self._session:
            return opened
        if opened.card is not None:
            peer.hello_at = NEVER  # a new session is answered at once
        return replace(opened, replies=(*self._hello(peer, now), *opened.replies))

    def _open_join(self, header: Header, secret: bytes, data: bytes, now: float) -> Opened:
        body = envelope.open_box(join_key(secret), header, self._context(_NOBODY), data)
        hello = read_hello(header.sender, self._notary, body)
        peer = self._peers.get(header.sender)
        if peer is None:
            self._require_in_force(hello.card)
        if hello.echo != self._session:
            # Not proven fresh: answered at the address its card names, remembered not at all.
            if peer is not None and now - peer.hello_at < HELLO_INTERVAL_S:
                return Opened(header.sender)
            if peer is not None:
                peer.hello_at = now
            reply = self._join(
                hello.card.address, hello.card.gossip_port, hello.session, done=False
            )
            return Opened(header.sender, replies=(reply,))
        if peer is None:
            self.learn(hello.card)
            peer = self._peers[header.sender]
        self._refuse_recording(peer, header)
        opened = self._take_hello(peer, hello, now)
        if hello.done:
            return opened
        # The other side may not know us yet, so the answer is a first contact too.
        answer = self._join(peer.card.address, peer.card.gossip_port, hello.session, done=True)
        return replace(opened, replies=(answer, *opened.replies))

    def _require_in_force(self, card: Card) -> None:
        certificate = card.certificate
        assert certificate is not None, "a hello's card is certified"
        if not certificate.not_before_s <= self._wall_clock() < certificate.not_after_s:
            raise RemoteError(CERTIFICATE_EXPIRED)

    @staticmethod
    def _refuse_recording(peer: Peer, header: Header) -> None:
        nonce = (header.counter, header.random)
        if nonce in peer.hellos:
            raise RemoteError(REPLAYED)
        peer.hellos.append(nonce)

    def _take_hello(self, peer: Peer, hello: Hello, now: float) -> Opened:
        """Note what a hello claims; begin a session if it has proven fresh and new."""
        sender = peer.card.node_id
        if hello.session in peer.retired:
            return self._take_retired(peer, hello, now)
        self.learn(hello.card)
        peer.claimed = hello.session
        if hello.echo != self._session:
            return Opened(sender)
        if peer.channel is not None and peer.channel.peer_session == hello.session:
            return Opened(sender)
        replies = tuple(self._accept(peer, hello.session, now))
        return Opened(sender, card=hello.card, replies=replies)

    def _take_retired(self, peer: Peer, hello: Hello, now: float) -> Opened:
        """Judge a session that another one has replaced and that speaks again.

        If the other one is silent, its hello was late, of a process before: the channel of this
        one is taken back as it was, for its keys and counters were used. If it lives, two hosts
        use one identity (a copied disk), and both are told of the other.
        """
        sender, channel = peer.card.node_id, peer.channel
        if hello.echo != self._session or channel is None:
            return Opened(sender)
        if now - channel.heard_at > SESSION_ALIVE_S:
            self.learn(hello.card)
            peer.claimed = hello.session
            back = peer.retired.pop(hello.session)
            return Opened(sender, card=hello.card, replies=tuple(self._use(peer, back, now)))
        return self._tell_rivals(peer, hello, channel.peer_session, now)

    def _tell_rivals(self, peer: Peer, hello: Hello, session: bytes, now: float) -> Opened:
        sender, present = peer.card.node_id, peer.card
        is_same_host = (hello.card.address, hello.card.gossip_port) == (
            present.address,
            present.gossip_port,
        )
        if is_same_host or now - peer.rival_told_at < NOTICE_INTERVAL_S:
            return Opened(sender)
        peer.rival_told_at = now
        replies = (
            self._notice(peer, hello.card, notices.rival_body(hello.session, present)),
            self._notice(peer, present, notices.rival_body(session, hello.card)),
        )
        return Opened(sender, rival=hello.card, replies=replies)

    def _accept(self, peer: Peer, session: bytes, now: float) -> list[Datagram]:
        """Begin a channel with a session that has proven fresh; send what waited for it."""
        generation = self._keyring.sealing
        secret = self._keyring.secret(generation)
        assert secret is not None, "a keyring has the secret it seals with"
        made = make_channel(self._identity, peer, secret, generation, self._session, session)
        return self._use(peer, made, now)

    def _use(self, peer: Peer, channel: Channel, now: float) -> list[Datagram]:
        """Seal with a channel from now on; send what waited for one."""
        peer.retire()
        if peer.channel is not None:
            peer.previous, peer.previous_until = peer.channel, now + PREVIOUS_KEPT_S
        peer.is_doubted = False
        peer.channel = channel
        waiting = list(peer.waiting)
        peer.waiting.clear()
        return [self._sealed(peer, channel, payload) for payload in waiting]
