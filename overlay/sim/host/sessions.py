"""Sessions that behave like the real ones, without cryptography.

Owns: which host can open which datagrams, by the rules of `wire.session.sessions`. Every start of
an agent is a new session. A peer's session is valid only after a hello has echoed this host's own.
A datagram that cannot be opened triggers a hello to the sender's known address. A hello carries its
sender's card and the ids of its keys. Datagrams of unknown senders are processed only as first
contacts (`overlayd join`). Payloads and first contacts are sealed under a cluster key; a receiver
without it drops them for the same reason as the real one. Sealing and replay protection are tested
with the real implementation.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from overlay import limits
from overlay.core.keys.rotation import Ring
from overlay.core.protocol.records import KeyId
from overlay.model import Card, NodeId
from overlay.wire.codec.datagram import UNAUTHENTICATED
from overlay.wire.session.sealer import UNKNOWN_GENERATION
from overlay.wire.session.sessions import NO_CHANNEL, REPLAYED

HELLO_INTERVAL_S: Final = 0.1
UNRESPONSIVE_HELLO_INTERVAL_S: Final = 1.0
PREVIOUS_KEPT_S: Final = 5.0
FIRST_SESSION: Final = 1  # session of an agent's first start
_NONE: Final = 0
_NEVER: Final = -1e9


class SimHello(NamedTuple):
    """A handshake: both sessions, the sender's card and its key ids."""

    session: int
    echo: int
    done: bool
    card: Card
    held: frozenset[KeyId]
    key: KeyId | None = None  # key of a first contact; None between known peers

    @property
    def is_join(self) -> bool:
        """Whether this is a first contact."""
        return self.key is not None


class SealedPayload(NamedTuple):
    """A payload sealed under the sessions of both sides and a cluster key."""

    session: int
    theirs: int
    key: KeyId
    payload: bytes


class SentKey(NamedTuple):
    """A cluster key, sent to the process of one session."""

    theirs: int
    key: KeyId


Content: TypeAlias = SimHello | SealedPayload | SentKey


class SimOpened(NamedTuple):
    """The result of opening a datagram."""

    payload: bytes | None = None
    key: KeyId | None = None  # sent by the peer
    dropped: str = ""
    replies: tuple[Content, ...] = ()


@dataclass(slots=True)
class _Peer:
    session: int = _NONE  # proven fresh; payloads are sealed under it
    previous: int = _NONE
    previous_until: float = 0.0
    claimed: int = _NONE
    hello_at: float = _NEVER
    is_unresponsive: bool = False
    waiting: deque[bytes] | None = None
    held: set[KeyId] | None = (
        None  # cluster keys that it can open with; None: those of all live members
    )


class Sessions:
    """One agent's sessions, from its start to its end."""

    def __init__(
        self, session: int, card: Card, ring: Ring, formed: Collection[NodeId] = ()
    ) -> None:
        self.session = session
        self.card = card
        self.ring = ring
        self._formed = formed  # peers with an established session: the cluster starts formed
        self._peers: dict[NodeId, _Peer] = {}

    def _peer(self, node_id: NodeId) -> _Peer:
        peer = self._peers.get(node_id)
        if peer is None:
            peer = self._peers[node_id] = _Peer()
            if node_id in self._formed:
                peer.session = peer.claimed = FIRST_SESSION
        return peer

    def forget(self, node_id: NodeId) -> None:
        """Drop a peer's session."""
        self._peers.pop(node_id, None)

    def mark_unresponsive(self, node_id: NodeId) -> None:
        """Record that a peer does not reply.

        It may have restarted without knowing this host.
        """
        self._peer(node_id).is_unresponsive = True

    # --- out ----------------------------------------------------------------------------

    def seal(self, to: NodeId, payload: bytes, now: float) -> list[Content]:
        """Return the datagrams that carry a payload.

        Without a session, or a key that the peer holds, the payload waits and a hello is sent. An
        unresponsive peer gets an additional hello now and then.
        """
        peer = self._peer(to)
        key = self.ring.for_peer(peer.held)
        if peer.session != _NONE and key is not None:
            sealed = SealedPayload(self.session, peer.session, key, payload)
            if peer.is_unresponsive and now - peer.hello_at >= UNRESPONSIVE_HELLO_INTERVAL_S:
                return [*self._hello(peer, now), sealed]
            return [sealed]
        if peer.waiting is None:
            peer.waiting = deque(maxlen=limits.HANDSHAKE_PAYLOADS_PER_PEER_MAX)
        peer.waiting.append(payload)
        return self._hello(peer, now)

    def first_contact(self) -> SimHello:
        """Return a first contact, for a peer of which nothing is known."""
        return self._join(_NONE, self.ring.sealing)

    def send_key(self, to: NodeId, now: float) -> list[Content]:
        """Return the newest key for a peer; without a session, a hello."""
        peer = self._peer(to)
        if peer.session == _NONE:
            return self._hello(peer, now)
        return [SentKey(peer.session, self.ring.newest)]

    def follow(self, ring: Ring, now: float) -> list[tuple[NodeId, Content]]:
        """Use a ring from now on.

        Returns payloads that waited for a key, and hellos to peers that lack the key in use.
        """
        is_new_in_use = ring.sealing != self.ring.sealing
        self.ring = ring
        sent: list[tuple[NodeId, Content]] = []
        for node_id, peer in self._peers.items():
            contents: list[Content] = []
            if is_new_in_use:
                peer.held = None  # all live members hold it; one that does not sends a hello
            elif peer.held is not None and ring.sealing not in peer.held:
                contents += self._hello(peer, now)
            contents += self._release_waiting(peer)
            sent += [(node_id, content) for content in contents]
        return sent

    def _release_waiting(self, peer: _Peer) -> list[Content]:
        """Return the waiting payloads if they can be sealed."""
        key = self.ring.for_peer(peer.held)
        if peer.session == _NONE or key is None:
            return []
        waiting, peer.waiting = peer.waiting or (), None
        return [SealedPayload(self.session, peer.session, key, payload) for payload in waiting]

    def _hello(self, peer: _Peer, now: float) -> list[Content]:
        is_met = peer.session != _NONE and peer.session == peer.claimed
        done = is_met and self.ring.for_peer(peer.held) is not None
        pause_s = HELLO_INTERVAL_S if done or not is_met else UNRESPONSIVE_HELLO_INTERVAL_S
        if now - peer.hello_at < pause_s:
            return []
        peer.hello_at = now
        return [SimHello(self.session, peer.claimed, done, self.card, self.ring.held)]

    def _join(self, echo: int, key: KeyId) -> SimHello:
        return SimHello(self.session, echo, False, self.card, self.ring.held, key)

    # --- in -----------------------------------------------------------------------------

    def open(self, sender: NodeId, content: SealedPayload | SentKey, now: float) -> SimOpened:
        """Return the payload or the key.

        For a datagram sealed under an unknown key or session, return a hello instead.
        """
        if type(content) is SentKey:
            if content.theirs != self.session:
                return SimOpened(dropped=REPLAYED)
            return SimOpened(key=content.key)
        assert type(content) is SealedPayload
        peer = self._peer(sender)
        if content.key not in self.ring.held:
            return SimOpened(dropped=UNKNOWN_GENERATION, replies=tuple(self._hello(peer, now)))
        if content.theirs == self.session:
            previous = peer.previous if now <= peer.previous_until else _NONE
            if content.session != _NONE and content.session in {peer.session, previous}:
                peer.is_unresponsive = False
                if peer.held is None or content.key in peer.held:
                    return SimOpened(content.payload)
                peer.held.add(content.key)  # it has received the key
                return SimOpened(content.payload, replies=tuple(self._release_waiting(peer)))
        reason = NO_CHANNEL if peer.session == _NONE else UNAUTHENTICATED
        return SimOpened(dropped=reason, replies=tuple(self._hello(peer, now)))

    def lacks_key_of(self, sender: NodeId, hello: SimHello, now: float) -> list[Content] | None:
        """Return the replies to a first contact under an unknown key.

        Returns None if the key is held.
        """
        if hello.key is None or hello.key in self.ring.held:
            return None
        is_known = sender in self._peers or sender in self._formed
        return self._hello(self._peer(sender), now) if is_known else []

    def take_hello(self, sender: NodeId, hello: SimHello, now: float) -> tuple[bool, list[Content]]:
        """Return whether this hello established a session, and the replies."""
        is_stranger = sender not in self._peers and sender not in self._formed
        if is_stranger and hello.key is not None and hello.echo != self.session:
            # Not proven fresh: reply without keeping state.
            return False, [self._join(hello.session, hello.key)]
        peer = self._peer(sender)
        peer.claimed = hello.session
        is_fresh = hello.echo == self.session
        began = is_fresh and peer.session != hello.session
        if is_fresh:
            peer.held = set(hello.held)
        if began:
            peer.previous, peer.previous_until = peer.session, now + PREVIOUS_KEPT_S
            peer.session = hello.session
            peer.is_unresponsive = False
        replies: list[Content] = []
        if not (hello.done and is_fresh and self.ring.for_peer(peer.held) is not None):
            if began:
                peer.hello_at = _NEVER  # reply to a new session at once
            for reply in self._hello(peer, now):
                assert isinstance(reply, SimHello)
                replies.append(reply._replace(key=hello.key))
        if is_fresh:
            replies += self._release_waiting(peer)
            replies += self._missing_key(peer)
        return began, replies

    def _missing_key(self, peer: _Peer) -> list[Content]:
        """Return the key in use if the peer lacks it."""
        if peer.session == _NONE or peer.held is None or self.ring.sealing in peer.held:
            return []
        return [SentKey(peer.session, self.ring.sealing)]
