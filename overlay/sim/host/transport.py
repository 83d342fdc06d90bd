"""The transport of a simulated agent.

Owns: the timer, sessions, first contacts while isolated, and the behavior of a suspended process
that resumes. The equivalent of the agent's transport; it exists for one run of the agent, from
start to crash.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from typing import Final, Protocol

from overlay import limits
from overlay.core.events import Event
from overlay.core.keys.rotation import Ring
from overlay.core.node import Node
from overlay.core.protocol.messages import Cards
from overlay.core.protocol.records import KeyId
from overlay.errors import RemoteError
from overlay.model import Ip, NodeId
from overlay.sim.environment.network import Flight
from overlay.sim.host.environment import AgentKilled, Environment
from overlay.sim.host.sessions import Content, SealedPayload, Sessions, SimHello
from overlay.wire.session.sealer import UNKNOWN_GENERATION

_LAG_NOTED_S: Final = 0.1
_CONTACT_S: Final = 0.5
_CONTACT_MAX_S: Final = 4.0
_CONTACTED_MAX: Final = 3
_SILENCE_S: Final = 5.0  # without a datagram for so long, peers may not know this host
_SEALED_SIZE: Final = limits.HEADER_SIZE + limits.TAG_SIZE
_HELLO_SIZE: Final = 28  # two sessions, a flag, msgpack framing
_KEY_NAME_SIZE: Final = 8
_KEY_SIZE: Final = 122  # a session, a secret, a warrant, two numbers, framing
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
            if type(content) is SealedPayload:
                codec.survive(content.payload, self._environment.rng)
            self._drops["corrupt"] += 1
            return
        if type(content) is SimHello:
            self._take_hello(sender, content)
            return
        node = self.node
        if node.store.card(sender) is None:
            self._drops["unknown sender"] += 1
            return
        opened = self.sessions.open(sender, content, now)
        if opened.dropped:
            self._drops[opened.dropped] += 1
            if opened.dropped == UNKNOWN_GENERATION:
                self._environment.keys.unknown(node.card.node_id, self.sessions, flight, now)
        for reply in opened.replies:
            self._send(sender, reply)
        if opened.key is not None:
            self._owner.receive_key(sender, opened.key)
        if opened.payload is None:
            return
        for message in codec.decode(opened.payload):
            try:
                node.receive(message, sender, now)
            except RemoteError as error:
                self._drops[error.reason] += 1

    def _take_hello(self, sender: NodeId, hello: SimHello) -> None:
        node = self.node
        if node.is_forgotten(sender):
            return
        now = self._schedule.now
        known = node.store.card(sender)
        refused = self.sessions.lacks_key_of(sender, hello, now)
        if refused is not None:
            self._drops[UNKNOWN_GENERATION] += 1
            for reply in refused:
                self._send(sender, reply)
            return
        if known is None and not hello.is_join:
            self._drops["unknown sender"] += 1
            return
        began, replies = self.sessions.take_hello(sender, hello, now)
        if began:
            node.add_peer(hello.card, now)
        elif known is not None and hello.card.epoch > known.epoch:
            node.receive(Cards((hello.card,)), sender, now)
        for reply in replies:
            self._send_to(hello.card.address, reply)

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
            for content in seal(to, payload, now):
                self._send(to, content)
        due = node.next_timer()
        if due is not None and due < self._armed:
            # A timer that is due before it was set is not late; lag counts from now.
            self._armed = due = max(due, now)
            self._schedule.at(due, self._on_timer, due)

    def send_key(self, to: NodeId) -> None:
        """Send the newest key to a member."""
        for content in self.sessions.send_key(to, self._schedule.now):
            self._send(to, content)

    def follow(self, ring: Ring) -> None:
        """Use a ring from now on."""
        for to, content in self.sessions.follow(ring, self._schedule.now):
            self._send(to, content)

    def _send(self, to: NodeId, content: Content) -> None:
        card = self.node.store.card(to)
        if card is not None:
            self._send_to(card.address, content)

    def _send_to(self, address: Ip, content: Content) -> None:
        if type(content) is SealedPayload:
            size = _SEALED_SIZE + len(content.payload)
        elif type(content) is SimHello:
            size = _SEALED_SIZE + _HELLO_SIZE + len(content.card.raw) + len(content.card.signature)
            size += _KEY_NAME_SIZE * len(content.held)
        else:
            size = _SEALED_SIZE + _KEY_SIZE
        own = self.node.card.node_id
        self._environment.network.send(own, self.address, address, content, size)

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
