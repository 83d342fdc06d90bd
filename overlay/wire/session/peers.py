"""One peer's key state: the static secret, the sessions now and before.

A session key binds both nodes' identities, the cluster's secret of one generation, and a random
session of either side; so no restart, restored snapshot or copied disk ever uses the same key
with the same nonce again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import NamedTuple

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from overlay import limits
from overlay.core.protocol.records import KeyId
from overlay.model import Card
from overlay.wire.session.replay import ReplayWindow

SESSION_SIZE = 8
NO_SESSION = bytes(SESSION_SIZE)
NEVER = -1e9
_HELLOS_REMEMBERED = 64


class SessionKeys(NamedTuple):
    """The keys of one pair of sessions under one cluster key, by direction."""

    sending: AESGCM
    receiving: AESGCM


@dataclass(slots=True)
class Channel:
    """One pair of sessions.

    Counters and window continue when the cluster key changes.
    """

    peer_session: bytes
    counter: int = 0
    heard_at: float = NEVER  # when anything was last opened with it
    window: ReplayWindow = field(default_factory=ReplayWindow)
    keys: dict[KeyId, SessionKeys] = field(default_factory=dict)


@dataclass(slots=True)
class Peer:
    """A node whose card is known."""

    card: Card
    shared: bytes  # X25519 of the two identities
    channel: Channel | None = None
    previous: Channel | None = None  # still opens datagrams in transit when it was replaced
    previous_until: float = 0.0
    held: set[KeyId] | None = None  # cluster keys that it holds; None: those of all live nodes
    claimed: bytes = NO_SESSION  # a session that it claims, not proven fresh
    hello_at: float = NEVER
    duplicate_notified_at: float = NEVER  # when the duplicates were last notified
    is_unresponsive: bool = False  # see `Sessions.mark_unresponsive`
    waiting: deque[bytes] = field(
        default_factory=lambda: deque(maxlen=limits.HANDSHAKE_PAYLOADS_PER_PEER_MAX)
    )
    hellos: deque[tuple[int, bytes]] = field(
        default_factory=lambda: deque(maxlen=_HELLOS_REMEMBERED)
    )  # nonces of the last hellos, which must not be accepted twice
    retired: dict[bytes, Channel] = field(default_factory=dict)  # by the peer's session

    def retire(self) -> None:
        """Keep the present channel for later.

        Its session may turn out to be the live one, and must then continue with its counters and
        window. Recordings from a session that is not remembered would be accepted again, while
        its cluster key is held.
        """
        if self.channel is not None:
            self.channel.keys.clear()  # derived again if needed
            self.retired[self.channel.peer_session] = self.channel
            while len(self.retired) > limits.SESSIONS_REMEMBERED_MAX:
                del self.retired[next(iter(self.retired))]

    def forget_keys(self, kept: Collection[KeyId]) -> None:
        """Drop the keys derived from cluster keys that are gone."""
        for channel in (self.channel, self.previous, *self.retired.values()):
            if channel is not None:
                channel.keys = {key: keys for key, keys in channel.keys.items() if key in kept}
