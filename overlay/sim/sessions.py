"""Sessions as the real ones behave, without their cryptography.

Owns: who can open whose datagrams. As in `wire.sessions`: every start of an agent is a new
session; a peer's session counts only once a hello has echoed our own; what can't be opened
provokes a hello to where the sender is known to live; a hello carries its sender's card; an
unknown sender is heard only in a first contact (`overlayd join`). Keys, seals and replays are
tested where the real ones are.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, NamedTuple

from overlay import limits
from overlay.model import Card, NodeId

HELLO_INTERVAL_S: Final = 0.1
DOUBTFUL_HELLO_INTERVAL_S: Final = 1.0
PREVIOUS_KEPT_S: Final = 5.0
FIRST_SESSION: Final = 1  # of an agent that has started once
_NONE: Final = 0
_NEVER: Final = -1e9


class Hello(NamedTuple):
    """A handshake: the sender's session, the echo of the other's, and the sender's card."""

    session: int
    echo: int
    done: bool
    card: Card
    join: bool


class Sealed(NamedTuple):
    """A payload under the sessions of both sides."""

    session: int
    theirs: int
    payload: bytes


@dataclass(slots=True)
class _Peer:
    session: int = _NONE  # proven fresh: payloads are sealed under it
    previous: int = _NONE
    previous_until: float = 0.0
    claimed: int = _NONE
    hello_at: float = _NEVER
    is_doubted: bool = False
    waiting: deque[bytes] | None = None


class Sessions:
    """One agent's sessions, from its start to its end."""

    def __init__(self, session: int, card: Card, formed: Collection[NodeId] = ()) -> None:
        self.session = session
        self.card = card
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

    def doubt(self, node_id: NodeId) -> None:
        """Note that a peer does not answer: it may have restarted, and not know our address."""
        self._peer(node_id).is_doubted = True

    # --- out ----------------------------------------------------------------------------

    def seal(self, to: NodeId, payload: bytes, now: float) -> list[Sealed | Hello]:
        """Return what to send for a payload; without a session it waits behind a hello.

        To a doubted peer a hello goes along now and then.
        """
        peer = self._peer(to)
        if peer.session != _NONE:
            sealed = Sealed(self.session, peer.session, payload)
            if not peer.is_doubted or now - peer.hello_at < DOUBTFUL_HELLO_INTERVAL_S:
                return [sealed]
            hello = self._hello(peer, now)
            return [sealed] if hello is None else [hello, sealed]
        if peer.waiting is None:
            peer.waiting = deque(maxlen=limits.HANDSHAKE_PAYLOADS_PER_PEER_MAX)
        peer.waiting.append(payload)
        hello = self._hello(peer, now)
        return [] if hello is None else [hello]

    def greeting(self) -> Hello:
        """Return a first contact to someone of whom nothing is known."""
        return Hello(self.session, _NONE, done=False, card=self.card, join=True)

    def _hello(self, peer: _Peer, now: float) -> Hello | None:
        if now - peer.hello_at < HELLO_INTERVAL_S:
            return None
        peer.hello_at = now
        done = peer.session != _NONE and peer.session == peer.claimed
        return Hello(self.session, peer.claimed, done, self.card, join=False)

    # --- in -----------------------------------------------------------------------------

    def open(self, sender: NodeId, sealed: Sealed, now: float) -> bytes | Hello | None:
        """Return the payload; or the hello that its being sealed under no session of ours
        provokes; or None."""
        peer = self._peer(sender)
        if sealed.theirs == self.session:
            previous = peer.previous if now <= peer.previous_until else _NONE
            if sealed.session != _NONE and sealed.session in {peer.session, previous}:
                peer.is_doubted = False
                return sealed.payload
        return self._hello(peer, now)

    def take_hello(
        self, sender: NodeId, hello: Hello, now: float
    ) -> tuple[bool, list[Hello | Sealed]]:
        """Return whether a session began with this hello, and what to answer."""
        is_stranger = sender not in self._peers and sender not in self._formed
        if is_stranger and hello.join and hello.echo != self.session:
            # Not proven fresh: answered, and not remembered.
            return False, [Hello(self.session, hello.session, False, self.card, join=True)]
        peer = self._peer(sender)
        peer.claimed = hello.session
        answers: list[Hello | Sealed] = []
        began = False
        if hello.echo == self.session and peer.session != hello.session:
            peer.previous, peer.previous_until = peer.session, now + PREVIOUS_KEPT_S
            peer.session = hello.session
            peer.is_doubted = False
            peer.hello_at = _NEVER  # a new session is answered at once
            began = True
        if not (hello.done and hello.echo == self.session):
            answer = self._hello(peer, now)
            if answer is not None:
                answers.append(answer._replace(join=hello.join))
        if began:
            waiting, peer.waiting = peer.waiting or (), None
            answers += [Sealed(self.session, peer.session, payload) for payload in waiting]
        return began, answers
