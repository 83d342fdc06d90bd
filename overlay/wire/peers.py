"""What is known of one peer's keys: the static secret, the present session, the one before.

Owns key derivation for a pair of nodes. A key binds both nodes' identities, the cluster's
secret, and the random session of either side; so no restart, restored snapshot or copied disk
ever meets the same key with the same nonce again.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from overlay import limits
from overlay.model import Card, NodeId
from overlay.wire import envelope
from overlay.wire.identity import Identity
from overlay.wire.replay import ReplayWindow

SESSION_SIZE = 8
NO_SESSION = bytes(SESSION_SIZE)
NEVER = -1e9
_SESSIONS_REMEMBERED = 8
_HELLOS_REMEMBERED = 64


@dataclass(slots=True)
class Channel:
    """The keys of one pair of sessions, at one generation of the cluster's secret."""

    peer_session: bytes
    generation: int
    sending: AESGCM
    receiving: AESGCM
    counter: int = 0
    heard_at: float = NEVER  # when anything was last opened with it
    window: ReplayWindow = field(default_factory=ReplayWindow)


@dataclass(slots=True)
class Peer:
    """A node whose card is known."""

    card: Card
    shared: bytes  # X25519 of the two identities
    channel: Channel | None = None
    previous: Channel | None = None  # still opens what was under way when it was replaced
    previous_until: float = 0.0
    claimed: bytes = NO_SESSION  # a session it claims, whose freshness is not proven
    hello_at: float = NEVER
    rival_told_at: float = NEVER  # when it and another host under its identity were last told
    is_doubted: bool = False  # it does not answer; see `Sessions.doubt`
    waiting: deque[bytes] = field(
        default_factory=lambda: deque(maxlen=limits.HANDSHAKE_PAYLOADS_PER_PEER_MAX)
    )
    hellos: deque[tuple[int, bytes]] = field(
        default_factory=lambda: deque(maxlen=_HELLOS_REMEMBERED)
    )  # nonces of the last ones taken: a recording is not taken twice
    retired: dict[bytes, Channel] = field(default_factory=dict)  # by the peer's session

    def retire(self) -> None:
        """Keep the channel aside: its session may turn out to be the living one, and must then go
        on with its counters and its window."""
        if self.channel is not None:
            self.retired[self.channel.peer_session] = self.channel
            while len(self.retired) > _SESSIONS_REMEMBERED:
                del self.retired[next(iter(self.retired))]


def hello_key(shared: bytes, secret: bytes, sender: NodeId, recipient: NodeId) -> AESGCM:
    """Return the key of handshakes from `sender` to `recipient`."""
    return envelope.derive(shared + secret, b"", b"overlayd/1 hello" + sender + recipient)


def notice_key(shared: bytes, sender: NodeId, recipient: NodeId) -> AESGCM:
    """Return the key of `sender`'s word to a node that it does not hear any more."""
    return envelope.derive(shared, b"", b"overlayd/1 notice" + sender + recipient)


def join_key(secret: bytes) -> AESGCM:
    """Return the key of first contacts between members that do not know each other."""
    return envelope.derive(secret, b"", b"overlayd/1 join")


def make_channel(
    identity: Identity, peer: Peer, secret: bytes, generation: int, session: bytes, theirs: bytes
) -> Channel:
    """Return the channel between our session and the peer's."""
    own, other = identity.node_id, peer.card.node_id
    keying = peer.shared + secret
    info = b"overlayd/1 data"
    return Channel(
        peer_session=theirs,
        generation=generation,
        sending=envelope.derive(keying, session + theirs, info + own + other),
        receiving=envelope.derive(keying, theirs + session, info + other + own),
    )
