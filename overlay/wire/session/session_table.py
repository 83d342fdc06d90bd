"""All sessions of one process, by peer and by index.

Owns: finding a session or handshake by its index, the queue of payloads that wait, repeated hellos,
and the end of sessions. Does not: know cryptography or cards that are merely known; the simulator
runs the same code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from overlay import limits
from overlay.core.keys.rotation import Ring
from overlay.core.protocol.records import KeyId
from overlay.model import NodeId
from overlay.wire.handshake.hello import Statement
from overlay.wire.session.link import NEVER, Establishment, Handshake, Link, Session


class SessionTable:
    """The sessions and handshakes of one process.

    `random_index` returns a random number of 32 bits.
    """

    def __init__(self, ring: Ring, random_index: Callable[[], int]) -> None:
        self.ring = ring
        self.queue_drop_count = 0
        self.accepted: Counter[KeyId] = Counter()  # payloads, by the cluster key of their session
        self._random_index = random_index
        self._switched_at = NEVER  # when the key in use was last replaced
        self._links: dict[NodeId, Link] = {}
        self._sessions: dict[int, tuple[Link, Session]] = {}
        self._handshakes: dict[int, tuple[Link, Handshake]] = {}
        self._repeats: dict[NodeId, float] = {}  # when a hello is repeated for what waits
        self._swept_at = NEVER

    # --- looking up ---------------------------------------------------------------------

    def link(self, node_id: NodeId) -> Link:
        """Return the link with a peer, a new one if there is none."""
        found = self._links.get(node_id)
        if found is None:
            found = self._links[node_id] = Link(node_id)
        return found

    def find(self, node_id: NodeId) -> Link | None:
        """Return the link with a peer, if there is one."""
        return self._links.get(node_id)

    def session(self, index: int, now: float) -> tuple[Link, Session] | None:
        """Return the session of an index, unless it is over."""
        found = self._sessions.get(index)
        if found is None:
            return None
        return None if found[1].is_over(now) else found

    def handshake(self, index: int, now: float) -> tuple[Link, Handshake] | None:
        """Return the handshake of an index, unless it is too old."""
        found = self._handshakes.get(index)
        if found is None or now - found[1].made_at > limits.HANDSHAKE_KEPT_S:
            return None
        return found

    def new_index(self) -> int:
        """Return an index that nothing has."""
        while (index := self._random_index()) in self._sessions or index in self._handshakes:
            pass
        return index

    def forget(self, node_id: NodeId) -> None:
        """End everything that is shared with a peer."""
        link = self._links.pop(node_id, None)
        self._repeats.pop(node_id, None)
        if link is not None:
            self._remove(link.sessions())
            self._end_handshakes(link)

    # --- sealing ------------------------------------------------------------------------

    def sealing_session(self, link: Link, now: float) -> Session | None:
        """Return the session that payloads are sealed with now; None: they wait."""
        return link.sealing_session(self.ring, self._switched_at, now)

    def wants_renewal(self, link: Link, session: Session, now: float) -> bool:
        """Return whether a new session is to replace this one, by a hello that may go now."""
        return link.wants_renewal(session, self.ring, now) and link.hello_due(now)

    def queue(self, link: Link, payload: bytes, now: float) -> bool:
        """Keep a payload until there is a session; return whether a hello may go now."""
        if len(link.waiting) == link.waiting.maxlen:
            self.queue_drop_count += 1
        link.waiting.append(payload)
        if not link.hello_due(now):
            self._repeats.setdefault(link.node_id, now + limits.HELLO_REPEAT_S)
            return False
        return True

    def take_waiting(self, link: Link, now: float) -> tuple[Session | None, list[bytes]]:
        """Return the payloads that waited, and the session for them; none without a session."""
        session = self.sealing_session(link, now)
        if session is None:
            return None, []
        waiting = list(link.waiting)
        link.waiting.clear()
        self._repeats.pop(link.node_id, None)
        return session, waiting

    # --- handshakes ---------------------------------------------------------------------

    def add_handshake(self, link: Link, index: int, state: Any, now: float) -> None:
        """Note a hello that is sent now."""
        handshake = Handshake(index, now, state)
        self._handshakes[index] = (link, handshake)
        displaced = link.add_handshake(handshake, now)
        if displaced is not None:
            del self._handshakes[displaced.index]
        self._repeats[link.node_id] = now + limits.HELLO_REPEAT_S * min(4, link.hello_count)

    def end_handshake(self, link: Link, handshake: Handshake) -> None:
        """Drop one handshake."""
        link.handshakes.pop(handshake.index, None)
        self._handshakes.pop(handshake.index, None)

    def answer(
        self, link: Link, peer: Statement, key: KeyId | None, keys: Any, now: float, index: int
    ) -> Session:
        """Return the unproven session that answers a hello."""
        session = Session(index, peer, key, now, is_initiator=False, keys=keys)
        self._sessions[index] = (link, session)
        displaced = link.add_unproven(session)
        if displaced is not None:
            del self._sessions[displaced.index]
        return session

    def complete(
        self, link: Link, handshake: Handshake, peer: Statement, key: KeyId | None, keys: Any,
        now: float,
    ) -> tuple[Session, Establishment]:  # fmt: skip
        """Return the session that a response has completed; it is proven by that."""
        session = Session(handshake.index, peer, key, now, is_initiator=True, keys=keys)
        self._sessions[session.index] = (link, session)
        return session, self.establish(link, session, now)

    def establish(self, link: Link, session: Session, now: float) -> Establishment:
        """Use a proven session; one of a duplicate identity is only kept for its last words."""
        meaning, ended = link.establish(session, now)
        self._remove(ended)
        self._end_handshakes(link)
        self._repeats.pop(link.node_id, None)
        if meaning is Establishment.DUPLICATE:
            del self._sessions[session.index]
        return meaning

    def key_for(self, held: frozenset[KeyId]) -> KeyId | None:
        """Return the cluster key for a session with a peer that holds these: the greatest common.

        Both sides hold it, whether or not all other members do.
        """
        return max(self.ring.held & held, default=None)

    def missing_key(self, session: Session) -> KeyId | None:
        """Return the key in use, if the peer of a new session lacks it."""
        return None if self.ring.sealing in session.peer.held else self.ring.sealing

    def count(self, session: Session) -> None:
        """Count a payload by its session's cluster key."""
        assert session.key is not None, "payloads have sessions with a cluster key"
        self.accepted[session.key] += 1
        if len(self.accepted) > limits.KEYS_COUNTED_MAX:
            del self.accepted[min(self.accepted)]

    # --- keys and time ------------------------------------------------------------------

    def keys_changed(self, ring: Ring, now: float) -> list[Link]:
        """Use a ring from now on; return the links for which a hello may help now."""
        is_new_in_use = ring.sealing != self.ring.sealing
        self.ring = ring
        if is_new_in_use:
            self._switched_at = now
        found = []
        for link in self._links.values():
            if is_new_in_use:
                link.held = None  # all live nodes hold it; a peer that does not will say so
            self._remove(link.end_sessions(ring, now))
            is_restricted = link.current is not None and link.current.key is None
            if link.waiting or is_restricted:
                link.hello_at = NEVER
                found.append(link)
        return found

    def next_timer(self) -> float:
        """Return when `handle_timer` is due."""
        return min(self._repeats.values(), default=self._swept_at + limits.SESSION_SWEEP_S)

    def handle_timer(self, now: float) -> list[Link]:
        """End what is over; return the links whose hello must be repeated now."""
        if now >= self._swept_at + limits.SESSION_SWEEP_S:
            self._swept_at = now
            for link in self._links.values():
                self._remove(link.end_sessions(self.ring, now))
                if not link.handshakes:
                    continue
                for each in list(link.handshakes.values()):
                    if now - each.made_at > limits.HANDSHAKE_KEPT_S:
                        self.end_handshake(link, each)
        repeated = []
        for node_id in [each for each, due in self._repeats.items() if due <= now]:
            del self._repeats[node_id]
            link = self._links[node_id]
            if link.waiting and link.hello_count <= limits.HELLO_REPEATS_MAX:
                repeated.append(link)
        return repeated

    def links(self) -> Iterator[Link]:
        """Yield all links."""
        yield from self._links.values()

    def _remove(self, sessions: Iterable[Session]) -> None:
        for each in sessions:
            each.keys = None  # erased, as far as this language allows
            self._sessions.pop(each.index, None)

    def _end_handshakes(self, link: Link) -> None:
        for index in link.handshakes:
            self._handshakes.pop(index, None)
        link.handshakes.clear()
