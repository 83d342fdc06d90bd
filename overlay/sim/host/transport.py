"""The transport of a simulated agent.

Owns: the timer, sessions, first contacts while isolated, and the behavior of a suspended process
that resumes. The equivalent of the agent's transport; it exists for one run of the agent, from
start to crash.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from typing import Final, Protocol

from overlay import limits
from overlay.core.events import Event
from overlay.core.keys.rotation import Ring
from overlay.core.node import Node
from overlay.core.protocol.records import KeyId
from overlay.errors import RemoteError
from overlay.model import Ip, NodeId
from overlay.sim.environment.network import Flight
from overlay.sim.host.environment import AgentKilled, Environment
from overlay.sim.host.sessions import (
    Addressed,
    Content,
    SealedFrame,
    Sessions,
    SimHello,
    SimJoin,
    SimResponse,
)
from overlay.wire.codec.session_header import RESPONSE_SIZE, SHORT_SIZE
from overlay.wire.handshake.cookies import MACS_SIZE
from overlay.wire.handshake.first_contact import UNKNOWN_GENERATION
from overlay.wire.handshake.noise import FIRST_SIZE, SECOND_SIZE
from overlay.wire.session.frames import padded_size
from overlay.wire.session.opened_datagram import NO_SESSION

_LAG_NOTED_S: Final = 0.1
_CONTACT_S: Final = 0.5
_CONTACT_MAX_S: Final = 4.0
_CONTACTED_MAX: Final = 3
_SILENCE_S: Final = 5.0  # without a datagram for so long, peers may not know this host
_HELLO_SIZE: Final = SHORT_SIZE + FIRST_SIZE + MACS_SIZE
_RESPONSE_SIZE: Final = RESPONSE_SIZE + SECOND_SIZE
_JOIN_SIZE: Final = limits.CONTACT_HEADER_SIZE + limits.TAG_SIZE + MACS_SIZE
_FRAME_SIZE: Final = limits.SESSION_HEADER_SIZE + limits.TAG_SIZE + limits.FRAME_HEAD_SIZE
_STATEMENT_SIZE: Final = 22  # an index, a process, a flag, msgpack framing
_KEY_NAME_SIZE: Final = 8
_KEY_SIZE: Final = 113  # a secret, a warrant, two numbers, framing
_NEVER: Final = float("inf")


class TransportOwner(Protocol):
    """The simulated host that a transport belongs to."""

    def handle_event(self, event: Event) -> None:
        """Act on an event of the node."""

    def receive_key(self, sender: NodeId, key: KeyId) -> None:
        """Use a cluster key that a peer sent."""

    def crash(self) -> None:
        """End the agent, which was killed in the middle of its work."""


class Transport:
    """Moves datagrams and time."""

    def __init__(
        self,
        node: Node,
        sessions: Sessions,
        environment: Environment,
        owner: TransportOwner,
        *,
        address: Ip,
        drops: Counter[str],
    ) -> None:
        self.node = node
        self.sessions = sessions
        self.address = address
        self._environment = environment
        self._schedule = environment.schedule
        self._drops = drops
        self._owner = owner
        self._closed = False
        self._armed = _NEVER
        self._stalled_until = 0.0
        self._backlog: deque[Flight] = deque(maxlen=limits.EVENT_QUEUE_MAX)

    def close(self) -> None:
        """Stop everything: the agent has ended."""
        self._closed = True
        self._backlog.clear()

    # --- in -----------------------------------------------------------------------------

    def deliver(self, flight: Flight) -> None:
        """Receive a datagram from the network."""
        if self._stalled_until > self._schedule.now:
            self._backlog.append(flight)
            return
        try:
            self._take(flight)
            self.flush()
        except AgentKilled:
            self._owner.crash()

    def _take(self, flight: Flight) -> None:
        content = flight.content
        sender = flight.sender
        now = self._schedule.now
        codec = self._environment.codec
        if flight.corrupt:
            if type(content) is SealedFrame and content.payload is not None:
                codec.survive(content.payload, self._environment.rng)
            self._drops["corrupt"] += 1
            return
        node = self.node
        if node.is_forgotten(sender):
            return
        opened = self.sessions.open(sender, content, flight.source, now)
        if opened.dropped:
            self._note_drop(opened.dropped, flight, now)
        for address, reply in opened.replies:
            self._send_to(address, reply)
        if opened.key is not None:
            self._owner.receive_key(sender, opened.key)
        if opened.card is not None:
            node.add_peer(opened.card, now)
        if opened.payload is None:
            return
        for message in codec.decode(opened.payload):
            try:
                node.receive(message, sender, now)
            except RemoteError as error:
                self._drops[error.reason] += 1

    def _note_drop(self, reason: str, flight: Flight, now: float) -> None:
        """Count a dropped datagram, and check one whose session ended with its cluster key."""
        content, sessions = flight.content, self.sessions
        is_ended = (
            type(content) is SealedFrame
            and reason == NO_SESSION
            and sessions.is_of_this_process(content.number)
            and content.session_key is not None
            and content.session_key not in sessions.table.ring.held
        )
        self._drops[UNKNOWN_GENERATION if is_ended else reason] += 1
        if is_ended:
            node_id = self.node.card.node_id
            self._environment.keys.unknown(node_id, content.session_key, flight, now)

    # --- out ----------------------------------------------------------------------------

    def flush(self) -> None:
        """Handle events, send pending messages, set the timer."""
        node = self.node
        if self._closed:
            return
        now = self._schedule.now
        while (event := node.next_event()) is not None:
            self._owner.handle_event(event)
        seal = self.sessions.seal
        for to, payload in node.outbox.drain(node.membership):
            for address, content in seal(to, payload, now):
                self._send_to(address, content)
        due = self._next_timer()
        if due < self._armed:
            # A timer that is due before it was set is not late; lag counts from now.
            self._armed = due = max(due, now)
            self._schedule.at(due, self._on_timer, due)

    def _next_timer(self) -> float:
        node_due = self.node.next_timer()
        due = self.sessions.next_timer()
        return due if node_due is None else min(due, node_due)

    def send_key(self, to: NodeId) -> None:
        """Send the newest key to a member."""
        self._send_all(self.sessions.send_key(to, self._schedule.now))

    def follow(self, ring: Ring) -> None:
        """Use a ring from now on."""
        self._send_all(self.sessions.follow(ring, self._schedule.now))

    def _send_all(self, addressed: Iterable[Addressed]) -> None:
        for address, content in addressed:
            self._send_to(address, content)

    def _send_to(self, address: Ip, content: Content) -> None:
        own = self.node.card.node_id
        self._environment.network.send(own, self.address, address, content, _size(content))

    # --- time ---------------------------------------------------------------------------

    def _on_timer(self, due: float) -> None:
        if self._closed or due != self._armed:
            return
        now = self._schedule.now
        if self._stalled_until > now:
            return  # `_resume` handles it
        node = self.node
        self._armed = _NEVER
        still_due = node.next_timer()
        try:
            if still_due is not None and still_due <= now:
                if now - due > _LAG_NOTED_S:
                    node.observe_lag(now - due, now)
                node.handle_timer(now)
            if self.sessions.next_timer() <= now:
                self._send_all(self.sessions.handle_timer(now))
            self.flush()
        except AgentKilled:
            self._owner.crash()

    def stalled(self) -> float | None:
        """Return until when the agent is suspended; None if it is not."""
        return self._stalled_until if self._stalled_until > self._schedule.now else None

    def stall(self, until: float) -> None:
        """Suspend the agent until then; meanwhile its socket's buffer fills."""
        if until > self._stalled_until:
            self._stalled_until = until
            self._schedule.at(until, self._resume, until)

    def wake(self) -> None:
        """Resume a suspended agent early."""
        if self.stalled() is not None:
            self._stalled_until = self._schedule.now
            self._resume(self._stalled_until)

    def _resume(self, until: float) -> None:
        if self._closed or until != self._stalled_until:
            return
        # As the event loop does: a batch of waiting datagrams, then the late timers.
        self._take_batch()
        if self._armed <= self._schedule.now:
            self._on_timer(self._armed)
        while self._backlog:
            self._take_batch()

    def _take_batch(self) -> None:
        """Process one batch of datagrams, as the agent does, then flush."""
        try:
            for _ in range(min(len(self._backlog), limits.RECEIVE_BATCH_COUNT)):
                self._take(self._backlog.popleft())
            self.flush()
        except AgentKilled:
            self._owner.crash()

    # --- first contact ------------------------------------------------------------------

    def contact_seeds(self, seeds: tuple[Ip, ...], later: Callable[..., None]) -> None:
        """Contact seeds and known peers while no datagram arrives.

        The pauses grow. Known peers may have forgotten this host, and accept only first contacts
        then.
        """
        self._contact((seeds, later, _CONTACT_S))

    def _contact(self, what: tuple[tuple[Ip, ...], Callable[..., None], float]) -> None:
        seeds, later, pause_s = what
        node = self.node
        last_contact_at = node.last_contact_at
        if last_contact_at is not None and self._schedule.now - last_contact_at < _SILENCE_S:
            later(_CONTACT_MAX_S, self._contact, (seeds, later, _CONTACT_S))
            return
        known = [card.address for card in node.store.cards.values() if card is not node.card]
        if len(known) > _CONTACTED_MAX:
            known = self._environment.rng.sample(known, _CONTACTED_MAX)
        for address in dict.fromkeys([*seeds, *known]):
            if address != self.address:
                self._send_to(address, self.sessions.first_contact())
        later(pause_s, self._contact, (seeds, later, min(2 * pause_s, _CONTACT_MAX_S)))


def _size(content: Content) -> int:
    """Return the size of a datagram, as the real one has it."""
    match content:
        case SealedFrame(payload=payload, key=key):
            inside = len(payload) if payload is not None else _KEY_SIZE if key is not None else 0
            return _FRAME_SIZE + padded_size(inside)
        case SimJoin(card=card):
            return _JOIN_SIZE + _STATEMENT_SIZE + len(card.raw) + len(card.signature)
        case SimHello(peer=peer) | SimResponse(peer=peer):
            head = _HELLO_SIZE if type(content) is SimHello else _RESPONSE_SIZE
            card = peer.card
            head += _STATEMENT_SIZE + len(card.raw) + len(card.signature)
            return head + _KEY_NAME_SIZE * len(peer.held)
