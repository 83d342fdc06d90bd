"""The hellos of one process: each begins a handshake for a session.

Owns: the note of each hello that is sent, and the limit on those that unopened datagrams prompt.
Does not: decide when a session is renewed (`link`).
"""

from __future__ import annotations

from overlay import limits
from overlay.errors import RemoteError
from overlay.model import Card
from overlay.wire.codec.datagram import Datagram
from overlay.wire.handshake.token_bucket import TokenBucket
from overlay.wire.session.context import SessionContext
from overlay.wire.session.link import Link
from overlay.wire.session.opened_datagram import OpenedDatagram


class HelloSender:
    """Makes and notes the hellos of one process."""

    def __init__(self, context: SessionContext) -> None:
        self._context = context
        self._prompted = TokenBucket(
            limits.PROMPTED_HELLOS_PER_S, limits.PROMPTED_HELLOS_BURST, 0.0
        )

    def hello(self, link: Link, to: Card, now: float) -> Datagram:
        """Return a hello to a peer, and expect its response."""
        table = self._context.table
        index = table.new_index()
        initiator, hello = self._context.maker.hello(index, to, now)
        table.add_handshake(link, index, initiator, now)
        return hello

    def hellos(self, links: list[Link], now: float) -> list[Datagram]:
        """Return a hello for each of these links whose peer is known."""
        found = []
        for link in links:
            card = self._context.peers.get(link.node_id)
            if card is not None:
                found.append(self.hello(link, card, now))
        return found

    def prompted(self, card: Card | None, reason: str, now: float) -> OpenedDatagram:
        """Return a hello to the known address of a peer whose datagram no key opens.

        One of the two may have restarted. Raises RemoteError with the reason where there is no such
        peer, or a hello to it is not due.
        """
        if card is None:
            raise RemoteError(reason)
        table = self._context.table
        link = table.link(card.node_id)
        has_session = table.sealing_session(link, now) is not None
        is_due = link.hello_due(now) and not (
            has_session and now - link.hello_at < limits.PROMPTED_HELLO_INTERVAL_S
        )
        if not is_due or not self._prompted.take(now):
            raise RemoteError(reason)
        replies = (self.hello(link, card, now),)
        return OpenedDatagram(card.node_id, dropped=reason, replies=replies)
