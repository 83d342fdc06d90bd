"""The sessions of two processes with each other, proven and unproven.

Owns: which session seals, which still open, and when a handshake is due. A session is proven when
something was opened under it, or by the response to this process's own hello; only a proven one
replaces another, and an unproven one displaces unproven ones only. Does not: know cryptography, so
that the simulator runs the same code; keys are whatever the owner puts into `keys`.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from overlay import limits
from overlay.core.keys.rotation import Ring
from overlay.core.protocol.records import KeyId
from overlay.core.protocol.replay_window import ReplayWindow
from overlay.model import NodeId
from overlay.wire.handshake.hello import Statement

NEVER = -1e9
FOREVER = 1e18
HELLO_INTERVAL_S = 0.1  # between the first hellos to a peer; doubled until the maximum
HELLO_INTERVAL_MAX_S = 1.0
SESSION_ALIVE_S = 3.0  # after anything was opened with it: probes come about every second


class Establishment(enum.Enum):
    """The meaning of a newly proven session."""

    CHANGED = "changed"  # the peer was not met before, has restarted, or has another card
    RENEWED = "renewed"  # the same process and card, with new keys
    DUPLICATE = "duplicate"  # another host uses the peer's identity: not established


@dataclass(slots=True)
class Session:
    """One session: both indexes, counters, window and keys."""

    index: int  # by which this process finds it
    peer: Statement
    key: KeyId | None  # cluster key in its handshake; None: it carries cluster keys only
    made_at: float
    is_initiator: bool  # this process sent the hello
    keys: Any  # by which it seals and opens; none in the simulator
    counter: int = 0
    heard_at: float = NEVER  # when anything was last opened with it
    until: float = FOREVER  # when it stops opening, after another has replaced it
    window: ReplayWindow = field(default_factory=ReplayWindow)

    def sends_until(self) -> float:
        """Return the time from which nothing is sealed with it."""
        return self.made_at + limits.SESSION_SENDS_S

    def is_over(self, now: float) -> bool:
        """Return whether it no longer opens anything, and must be erased."""
        return now >= self.until or now >= self.made_at + limits.SESSION_KEPT_S

    def is_old(self, now: float) -> bool:
        """Return whether its ephemeral keys must be renewed; the initiator does so first."""
        renewed_s = limits.SESSION_RENEWED_S
        if not self.is_initiator:
            renewed_s += limits.SESSION_RENEWAL_TURN_S
        return now - self.made_at >= renewed_s or self.counter >= limits.SESSION_DATAGRAMS_MAX


@dataclass(slots=True)
class Handshake:
    """A hello that this process has sent, and what opens the response."""

    index: int
    made_at: float
    state: Any
    failure_count: int = 0  # forged responses


@dataclass(slots=True)
class Link:
    """The sessions with one peer, and payloads that wait for one."""

    node_id: NodeId
    current: Session | None = None
    former: list[Session] = field(default_factory=list)  # replaced; each still opens until its end
    unproven: dict[int, Session] = field(default_factory=dict)
    handshakes: dict[int, Handshake] = field(default_factory=dict)
    hello_at: float = NEVER
    hello_count: int = 0  # without a response
    process: bytes = b""  # the peer's, by the last proven session
    card: bytes = b""  # the peer's, likewise
    heard_at: float = NEVER  # when that process was last heard
    replaced: deque[bytes] = field(
        default_factory=lambda: deque(maxlen=limits.PROCESSES_REMEMBERED_MAX)
    )
    hellos: deque[bytes] = field(
        default_factory=lambda: deque(maxlen=limits.HELLOS_REMEMBERED_MAX)
    )  # ephemeral keys of the last hellos, which are not answered twice
    held: frozenset[KeyId] | None = None  # the peer's cluster keys; None: those of all live nodes
    is_unresponsive: bool = False
    duplicate_notified_at: float = NEVER
    waiting: deque[bytes] = field(
        default_factory=lambda: deque(maxlen=limits.HANDSHAKE_PAYLOADS_PER_PEER_MAX)
    )

    def sessions(self) -> Iterator[Session]:
        """Yield all sessions."""
        if self.current is not None:
            yield self.current
        yield from self.former
        yield from self.unproven.values()

    # --- sealing ------------------------------------------------------------------------

    def sealing_session(self, ring: Ring, switched_at: float, now: float) -> Session | None:
        """Return the session that payloads are sealed with now; None: they wait.

        `switched_at` is when the ring's key in use was last replaced. A session of a former key is
        not used for long after that: the peer may drop that key, and the session with it. Where the
        peer has said that it lacks the key in use, that is asked again now and then.
        """
        session = self.current
        if session is None or session.key not in ring.held or now >= session.sends_until():
            return None
        if session.counter >= 2 * limits.SESSION_DATAGRAMS_MAX:
            return None
        if now - switched_at >= limits.KEY_SWITCH_S and self.lacks_key_in_use(session, ring):
            return None
        is_doubtful = now - session.made_at >= limits.KEY_DOUBT_S
        return None if is_doubtful and self.is_older(session, ring) else session

    def lacks_key_in_use(self, session: Session, ring: Ring) -> bool:
        """Return whether a session with the key in use could replace this one."""
        return self.is_older(session, ring) and (self.held is None or ring.sealing in self.held)

    @staticmethod
    def is_older(session: Session, ring: Ring) -> bool:
        """Return whether a session's cluster key is lesser than the one in use."""
        return session.key is None or session.key < ring.sealing

    def wants_renewal(self, session: Session, ring: Ring, now: float) -> bool:
        """Return whether a new session is to replace this one."""
        if self.is_unresponsive or session.is_old(now) or self.lacks_key_in_use(session, ring):
            return True
        is_doubtful = now - session.made_at >= limits.KEY_DOUBT_S / 2
        return is_doubtful and self.is_older(session, ring)

    def hello_due(self, now: float) -> bool:
        """Return whether a hello may be sent now; the pauses grow while none is answered.

        A peer that answers, but shares no cluster key, may be unable to store one: a full disk.
        """
        pause_s = min(HELLO_INTERVAL_MAX_S, HELLO_INTERVAL_S * 2.0 ** min(self.hello_count, 8))
        if self.current is not None:
            pause_s = HELLO_INTERVAL_MAX_S
        return now - self.hello_at >= pause_s

    # --- sessions come and go -----------------------------------------------------------

    def add_unproven(self, session: Session) -> Session | None:
        """Add a session that is not proven; return the one that it displaces."""
        self.unproven[session.index] = session
        if len(self.unproven) <= limits.SESSIONS_UNPROVEN_MAX:
            return None
        return self.unproven.pop(next(iter(self.unproven)))

    def add_handshake(self, handshake: Handshake, now: float) -> Handshake | None:
        """Add a hello that is sent now; return the one that it displaces."""
        self.handshakes[handshake.index] = handshake
        self.hello_at = now
        self.hello_count += 1
        if len(self.handshakes) <= limits.HANDSHAKES_PENDING_MAX:
            return None
        return self.handshakes.pop(next(iter(self.handshakes)))

    def establish(self, session: Session, now: float) -> tuple[Establishment, list[Session]]:
        """Use a session that was proven; return what it means, and the sessions it ends."""
        self.unproven.pop(session.index, None)
        process = session.peer.process
        is_new = process != self.process
        if is_new and self._is_duplicate(session, now):
            return Establishment.DUPLICATE, []
        if self.current is not None:
            self.former.append(self.current)
        ended = [self.former.pop(0)] if len(self.former) > limits.SESSIONS_FORMER_MAX else []
        if is_new:
            # A process that has ended seals nothing now; what it has sealed may be under way.
            self._end_former(now)
            if self.process:
                self.replaced.append(self.process)
            if process in self.replaced:
                self.replaced.remove(process)
        is_changed = is_new or self.card != session.peer.card.raw
        self.current, self.process, self.card = session, process, session.peer.card.raw
        self.held, self.heard_at = session.peer.held, now
        self.is_unresponsive = False
        self.hello_count = 0
        return (Establishment.CHANGED if is_changed else Establishment.RENEWED), ended

    def _end_former(self, now: float) -> None:
        """Let the former sessions open only what is under way."""
        for each in self.former:
            each.until = min(each.until, now + limits.SESSION_PREVIOUS_S)

    def _is_duplicate(self, session: Session, now: float) -> bool:
        """Return whether a replaced process speaks although the one in its place is alive.

        From the same address it is a late handshake of an earlier process.
        """
        if self.current is None or session.peer.process not in self.replaced:
            return False
        here, there = self.current.peer.card, session.peer.card
        is_same_host = (here.address, here.gossip_port) == (there.address, there.gossip_port)
        return not is_same_host and now - self.heard_at <= SESSION_ALIVE_S

    def heard(self, session: Session, now: float) -> None:
        """Note that something was opened with a proven session."""
        session.heard_at = now
        if session.peer.process != self.process:
            return
        self.heard_at = now
        self.is_unresponsive = False
        if session is self.current:
            self._end_former(now)
        else:
            # After two handshakes at once, each side may seal with the session that it got last.
            session.until = max(session.until, now + limits.SESSION_PREVIOUS_S)

    def end_sessions(self, ring: Ring, now: float) -> list[Session]:
        """Remove and return the sessions whose time, or whose cluster key, is over."""
        ended = [
            each
            for each in self.sessions()
            if each.is_over(now) or (each.key is not None and each.key not in ring.held)
        ]
        for each in ended:
            self.unproven.pop(each.index, None)
            if each is self.current:
                self.current = None
            elif each in self.former:
                self.former.remove(each)
        return ended
