"""Sessions as the real ones behave, without their cryptography.

Owns: who can open whose datagrams. As in `wire.session.sessions`: every start of an agent is a new
session; a peer's session counts only once a hello has echoed our own; what can't be opened
provokes a hello to where the sender is known to live; a hello carries its sender's card and the
names of its keys; an unknown sender is heard only in a first contact (`overlayd join`). Payloads
and first contacts are under a cluster key: who holds none of that name opens nothing, which is
dropped under the reason that the real ones give. Seals and replays are tested where those are.
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
FIRST_SESSION: Final = 1  # of an agent that has started once
_NONE: Final = 0
_NEVER: Final = -1e9


class SimHello(NamedTuple):
    """A handshake: the sender's session, the echo of the other's, the sender's card and keys."""

    session: int
    echo: int
    done: bool
    card: Card
    held: frozenset[KeyId]
    key: KeyId | None = None  # that a first contact is sealed under; None between two that know

    @property
    def is_join(self) -> bool:
        """Whether this is a first contact."""
        return self.key is not None


class SealedPayload(NamedTuple):
    """A payload under the sessions of both sides, and a cluster key."""

    session: int
    theirs: int
    key: KeyId
    payload: bytes


class SentKey(NamedTuple):
    """A cluster key, for the process of one session."""

    theirs: int
    key: KeyId


Content: TypeAlias = SimHello | SealedPayload | SentKey


class SimOpened(NamedTuple):
    """What came of a datagram."""

    payload: bytes | None = None
    key: KeyId | None = None  # that the sender hands us
    dropped: str = ""
    replies: tuple[Content, ...] = ()


@dataclass(slots=True)
class _Peer:
    session: int = _NONE  # proven fresh: payloads are sealed under it
    previous: int = _NONE
    previous_until: float = 0.0
    claimed: int = _NONE
    hello_at: float = _NEVER
    is_unresponsive: bool = False
    waiting: deque[bytes] | None = None
    held: set[KeyId] | None = None  # cluster keys it can open with; None: as all live ones


class Sessions:
    """One agent's sessions, from its start to its end."""

    def __init__(
        self, session: int, card: Card, ring: Ring, formed: Collection[NodeId] = ()
    ) -> None:
        self.session = session
        self.card = card
        self.ring = ring
        self._formed = formed  # with these a session exists: the cluster has run for long
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
        """Note that a peer does not answer: it may have restarted, and not know our address."""
        self._peer(node_id).is_unresponsive = True

    # --- out ----------------------------------------------------------------------------

    def seal(self, to: NodeId, payload: bytes, now: float) -> list[Content]:
        """Return what to send for a payload; without a session, or a key that the peer holds, it
        waits behind a hello.

        To a doubted peer a hello goes along now and then.
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

    def greeting(self) -> SimHello:
        """Return a first contact to someone of whom nothing is known."""
        return self._join(_NONE, self.ring.sealing)

    def send_key(self, to: NodeId, now: float) -> list[Content]:
        """Return our newest key for a peer; without a session, a hello."""
        peer = self._peer(to)
        if peer.session == _NONE:
            return self._hello(peer, now)
        return [SentKey(peer.session, self.ring.newest)]

    def follow(self, ring: Ring, now: float) -> list[tuple[NodeId, Content]]:
        """Use a ring from now on; return what waited for a key, and hellos to who lacks the one
        in use."""
        is_new_in_use = ring.sealing != self.ring.sealing
        self.ring = ring
        sent: list[tuple[NodeId, Content]] = []
        for node_id, peer in self._peers.items():
            contents: list[Content] = []
            if is_new_in_use:
                peer.held = None  # all that live hold it; whoever does not will say so
            elif peer.held is not None and ring.sealing not in peer.held:
                contents += self._hello(peer, now)
            contents += self._waited(peer)
            sent += [(node_id, content) for content in contents]
        return sent

    def _waited(self, peer: _Peer) -> list[Content]:
        """Return the payloads that waited, once they can be sealed."""
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
        """Return the payload or the key; or the hello that its being sealed under no key or
        session of ours provokes."""
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
                peer.held.add(content.key)  # it has been handed it
                return SimOpened(content.payload, replies=tuple(self._waited(peer)))
        reason = NO_CHANNEL if peer.session == _NONE else UNAUTHENTICATED
        return SimOpened(dropped=reason, replies=tuple(self._hello(peer, now)))

    def lacks_key_of(self, sender: NodeId, hello: SimHello, now: float) -> list[Content] | None:
        """Return what to answer to a first contact under a key that is not held; None if it is."""
        if hello.key is None or hello.key in self.ring.held:
            return None
        is_known = sender in self._peers or sender in self._formed
        return self._hello(self._peer(sender), now) if is_known else []

    def take_hello(self, sender: NodeId, hello: SimHello, now: float) -> tuple[bool, list[Content]]:
        """Return whether a session began with this hello, and what to answer."""
        is_stranger = sender not in self._peers and sender not in self._formed
        if is_stranger and hello.key is not None and hello.echo != self.session:
            # Not proven fresh: answered, and not remembered.
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
        answers: list[Content] = []
        if not (hello.done and is_fresh and self.ring.for_peer(peer.held) is not None):
            if began:
                peer.hello_at = _NEVER  # a new session is answered at once
            for answer in self._hello(peer, now):
                assert isinstance(answer, SimHello)
                answers.append(answer._replace(key=hello.key))
        if is_fresh:
            answers += self._waited(peer)
            answers += self._hand_over(peer)
        return began, answers

    def _hand_over(self, peer: _Peer) -> list[Content]:
        """Return the key in use for a peer that lacks it."""
        if peer.session == _NONE or peer.held is None or self.ring.sealing in peer.held:
            return []
        return [SentKey(peer.session, self.ring.sealing)]
