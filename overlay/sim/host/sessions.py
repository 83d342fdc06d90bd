"""Sessions that behave like the real ones, without cryptography.

Owns: handshakes and first contacts as values, by the rules of `wire.session.sessions`. Which
session seals, which still open and when one is renewed is decided by the very code that hosts run
(`wire.session.session_table`). A datagram names its session, and a host without that session
cannot open it; the limits on handshakes are not modelled. Sealing, replay protection and cookies
are tested with the real implementation.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection
from typing import Final, NamedTuple, TypeAlias

from overlay import limits
from overlay.core.keys.rotation import Ring
from overlay.core.protocol.records import KeyId
from overlay.model import Card, Ip, NodeId
from overlay.wire.handshake.first_contact import UNKNOWN_GENERATION
from overlay.wire.handshake.hello import Statement
from overlay.wire.session.link import NEVER, Establishment, Link, Session
from overlay.wire.session.opened_datagram import LATE_RESPONSE, NO_SESSION, REPLAYED
from overlay.wire.session.session_table import SessionTable

_FORMED_INDEX: Final = 0  # of sessions that a formed cluster starts with
_FIRST_LIFE: Final = 1
_INDEXES_PER_LIFE: Final = 2**20
NO_PROCESS: Final = b""


class SimHello(NamedTuple):
    """The first message of a handshake."""

    peer: Statement
    ephemeral: int  # no two hellos have the same


class SimResponse(NamedTuple):
    """The second message of a handshake; `key` is the cluster key in it."""

    peer: Statement
    number: int  # the receiver's index
    key: KeyId | None


class SimJoin(NamedTuple):
    """A first contact under a cluster key; without an echo it asks for an answer."""

    process: bytes
    echo: bytes
    card: Card
    key: KeyId


class SealedFrame(NamedTuple):
    """A payload or a cluster key within a session; neither: it confirms the session."""

    number: int  # the receiver's index
    counter: int
    session_key: KeyId | None
    payload: bytes | None = None
    key: KeyId | None = None


Content: TypeAlias = SimHello | SimResponse | SimJoin | SealedFrame


class Addressed(NamedTuple):
    """A datagram and its destination."""

    address: Ip
    content: Content


class SimOpened(NamedTuple):
    """The result of opening a datagram."""

    payload: bytes | None = None
    key: KeyId | None = None  # sent by the peer
    card: Card | None = None  # of a peer whose session was just established
    dropped: str = ""
    replies: tuple[Addressed, ...] = ()


class Sessions:
    """One agent's sessions, from its start to its end.

    `life` is the number of this start; `card_of` returns the card of a known node.
    """

    def __init__(
        self,
        life: int,
        card: Card,
        ring: Ring,
        card_of: Callable[[NodeId], Card | None],
        formed: Collection[NodeId] = (),
    ) -> None:
        self.card = card
        self.table = SessionTable(ring, itertools.count(life * _INDEXES_PER_LIFE).__next__)
        self._life = life
        self._process = life.to_bytes(8, "big")
        self._card_of = card_of
        self._learned: dict[NodeId, Card] = {}  # by joins
        self._formed = formed
        self._ephemerals = itertools.count(life * _INDEXES_PER_LIFE)

    def is_of_this_process(self, index: int) -> bool:
        """Return whether an index was drawn by this process."""
        return index == _FORMED_INDEX or index // _INDEXES_PER_LIFE == self._life

    def _known(self, node_id: NodeId) -> Card | None:
        return self._card_of(node_id) or self._learned.get(node_id)

    def _link(self, node_id: NodeId) -> Link:
        link = self.table.find(node_id)
        if link is not None:
            return link
        link, card = self.table.link(node_id), self._card_of(node_id)
        if node_id in self._formed and card is not None:
            ring = self.table.ring
            peer = Statement(_FORMED_INDEX, _FIRST_LIFE.to_bytes(8, "big"), card, ring.held)
            link.current = Session(_FORMED_INDEX, peer, ring.sealing, 0.0, False, None)
            link.process, link.card = peer.process, card.raw
        return link

    def forget(self, node_id: NodeId) -> None:
        """End the sessions with a peer."""
        self.table.forget(node_id)

    def mark_unresponsive(self, node_id: NodeId) -> None:
        """Record that a peer does not reply.

        It may have restarted without knowing this host.
        """
        self._link(node_id).is_unresponsive = True

    # --- out ----------------------------------------------------------------------------

    def seal(self, to: NodeId, payload: bytes, now: float) -> list[Addressed]:
        """Return the datagrams that carry a payload; without a session, a hello."""
        card = self._known(to)
        if card is None:
            return []
        link = self._link(to)
        session = self.table.sealing_session(link, now)
        if session is None:
            return [self._hello(link, card, now)] if self.table.queue(link, payload, now) else []
        sealed = Addressed(card.address, _frame(session, payload=payload))
        if self.table.wants_renewal(link, session, now):
            return [self._hello(link, card, now), sealed]
        return [sealed]

    def first_contact(self) -> SimJoin:
        """Return a first contact, for a peer of which nothing is known."""
        return SimJoin(self._process, NO_PROCESS, self.card, self.table.ring.sealing)

    def send_key(self, to: NodeId, now: float) -> list[Addressed]:
        """Return the newest key for a peer; without a session, a hello."""
        card = self._known(to)
        if card is None:
            return []
        link = self._link(to)
        session = link.current
        if session is None or now >= session.sends_until():
            return [self._hello(link, card, now)] if link.hello_due(now) else []
        return [Addressed(card.address, _frame(session, key=self.table.ring.newest))]

    def follow(self, ring: Ring, now: float) -> list[Addressed]:
        """Use a ring from now on; return hellos to peers that wait for a common key."""
        return self._hellos(self.table.keys_changed(ring, now), now)

    def next_timer(self) -> float:
        """Return when `handle_timer` is due."""
        return self.table.next_timer()

    def handle_timer(self, now: float) -> list[Addressed]:
        """End what is over; return hellos that are repeated."""
        return self._hellos(self.table.handle_timer(now), now)

    def _hellos(self, links: list[Link], now: float) -> list[Addressed]:
        cards = [(link, self._known(link.node_id)) for link in links]
        return [self._hello(link, card, now) for link, card in cards if card is not None]

    def _hello(self, link: Link, to: Card, now: float) -> Addressed:
        index = self.table.new_index()
        self.table.add_handshake(link, index, None, now)
        return Addressed(to.address, SimHello(self._statement(index), next(self._ephemerals)))

    def _statement(self, index: int) -> Statement:
        return Statement(index, self._process, self.card, self.table.ring.held)

    # --- in -----------------------------------------------------------------------------

    def open(self, sender: NodeId, content: Content, source: Ip, now: float) -> SimOpened:
        """Return what a datagram contains and what it causes; `source` is where it came from."""
        match content:
            case SealedFrame():
                return self._open_frame(sender, content, source, now)
            case SimHello():
                return self._open_hello(sender, content, now)
            case SimResponse():
                return self._open_response(content, now)
            case SimJoin():
                return self._open_join(sender, content, now)

    def _open_frame(self, sender: NodeId, frame: SealedFrame, source: Ip, now: float) -> SimOpened:
        found = self._session_of(sender, frame.number, now)
        if found is None:
            return self._answer_by_hello(sender, NO_SESSION, source, now)
        link, session = found
        if not session.window.accept(frame.counter):
            return SimOpened(dropped=REPLAYED)
        opened = SimOpened()
        if session.index in link.unproven:
            opened = self._established(link, session, None, now)
            if link.current is not session:
                return opened  # another host uses the peer's identity
        link.heard(session, now)
        if session is not link.current:
            opened = opened._replace(replies=(*opened.replies, *self._confirm_again(link, now)))
        if frame.payload is not None:
            if session.key is None:
                return SimOpened(dropped=NO_SESSION)
            self.table.count(session)
        return opened._replace(payload=frame.payload, key=frame.key)

    def _session_of(self, sender: NodeId, index: int, now: float) -> tuple[Link, Session] | None:
        if index != _FORMED_INDEX:
            return self.table.session(index, now)
        if sender not in self._formed:
            return None
        link = self._link(sender)
        for session in link.sessions():
            if session.index == _FORMED_INDEX and not session.is_over(now):
                return link, session
        return None

    def _confirm_again(self, link: Link, now: float) -> tuple[Addressed, ...]:
        card, current = self._known(link.node_id), link.current
        if card is None or current is None or current.heard_at != NEVER or not link.hello_due(now):
            return ()
        link.hello_at = now
        return (Addressed(card.address, _frame(current)),)

    def _answer_by_hello(
        self, node_id: NodeId, reason: str, source: Ip | None, now: float
    ) -> SimOpened:
        """Return a hello to the node that is known at the source's address."""
        card = self._known(node_id)
        if card is None or (source is not None and card.address != source):
            return SimOpened(dropped=reason)
        link = self._link(node_id)
        has_session = self.table.sealing_session(link, now) is not None
        if not link.hello_due(now) or (
            has_session and now - link.hello_at < limits.PROMPTED_HELLO_INTERVAL_S
        ):
            return SimOpened(dropped=reason)
        return SimOpened(dropped=reason, replies=(self._hello(link, card, now),))

    def _open_hello(self, sender: NodeId, hello: SimHello, now: float) -> SimOpened:
        link = self._link(sender)
        ephemeral = hello.ephemeral.to_bytes(8, "big")
        if ephemeral in link.hellos:
            return SimOpened(dropped=REPLAYED)
        link.hellos.append(ephemeral)
        key = self.table.key_for(hello.peer.held)
        index = self.table.new_index()
        self.table.answer(link, hello.peer, key, None, now, index)
        response = SimResponse(self._statement(index), hello.peer.number, key)
        return SimOpened(replies=(Addressed(hello.peer.card.address, response),))

    def _open_response(self, response: SimResponse, now: float) -> SimOpened:
        found = self.table.handshake(response.number, now)
        if found is None:
            return SimOpened(dropped=LATE_RESPONSE)
        link, handshake = found
        if response.key is not None and response.key not in self.table.ring.held:
            return SimOpened(dropped=UNKNOWN_GENERATION)
        session, meaning = self.table.complete(
            link, handshake, response.peer, response.key, None, now
        )
        return self._established(link, session, meaning, now)

    def _established(
        self, link: Link, session: Session, completed: Establishment | None, now: float
    ) -> SimOpened:
        meaning = completed or self.table.establish(link, session, now)
        if meaning is Establishment.DUPLICATE:
            return SimOpened()
        card = self._known(link.node_id) or session.peer.card
        self._learned.setdefault(link.node_id, session.peer.card)
        frames = []
        missing = self.table.missing_key(session)
        if missing is not None:
            frames.append(_frame(session, key=missing))
        sealing, waiting = self.table.take_waiting(link, now)
        if sealing is not None:
            frames += [_frame(sealing, payload=each) for each in waiting]
        if completed is not None and not frames:
            frames.append(_frame(session))
        if card.epoch < session.peer.card.epoch:
            card = session.peer.card
        is_news = meaning is Establishment.CHANGED
        return SimOpened(
            card=session.peer.card if is_news else None,
            replies=tuple(Addressed(card.address, frame) for frame in frames),
        )

    def _open_join(self, sender: NodeId, join: SimJoin, now: float) -> SimOpened:
        if join.key not in self.table.ring.held:
            return self._answer_by_hello(sender, UNKNOWN_GENERATION, None, now)
        if join.echo == NO_PROCESS:
            answer = SimJoin(self._process, join.process, self.card, join.key)
            return SimOpened(replies=(Addressed(join.card.address, answer),))
        if join.echo != self._process:
            return SimOpened(dropped=REPLAYED)
        self._learned[sender] = join.card
        link = self._link(sender)
        return SimOpened(
            replies=(self._hello(link, join.card, now),) if link.hello_due(now) else ()
        )


def _frame(session: Session, payload: bytes | None = None, key: KeyId | None = None) -> SealedFrame:
    frame = SealedFrame(session.peer.number, session.counter, session.key, payload, key)
    session.counter += 1
    return frame
