"""Notices: the receiver is forgotten, or another host has its identity.

Owns: the body of a notice. An empty one means "forgotten here". The other kind names the session
that it is for, so that no recording of it alarms a later process, and has the other host's signed
card.
"""

from __future__ import annotations

import msgpack

from overlay import limits
from overlay.model import Card
from overlay.wire.codec import validation
from overlay.wire.codec.datagram import NOTICE, Datagram
from overlay.wire.codec.records import unpack_card
from overlay.wire.session.peers import SESSION_SIZE, Peer
from overlay.wire.session.sealer import Sealer

FORGOTTEN = b""
INTERVAL_S = 1.0  # between notices to a barred node or a duplicate


def notice(sealer: Sealer, peer: Peer, to: Card, body: bytes) -> Datagram:
    """Return a notice for a peer, to the address on a card."""
    return Datagram(to.address, to.gossip_port, sealer.to_pair(NOTICE, peer, body))


def duplicate_body(session: bytes, other: Card) -> bytes:
    """Return the body that shows a session's process the other host's card."""
    body: bytes = msgpack.packb([session, other.raw, other.signature])
    return body


def read_duplicate(body: bytes) -> tuple[bytes, Card]:
    """Return the session and the other host's card.

    Raises RemoteError if malformed.
    """
    session, raw, signature = validation.array(validation.unpack(body), 3)
    card = unpack_card(
        validation.octets_to(raw, limits.CARD_SIZE_MAX), validation.octets(signature, 64)
    )
    return validation.octets(session, SESSION_SIZE), card
