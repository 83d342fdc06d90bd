"""What a notice says: its receiver is forgotten, or is not the only one under its identity.

Owns: the body of a notice. An empty one says "forgotten here". The other names the session it is
meant for, so that no recording of it alarms a later process, and has the rival's signed card.
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
INTERVAL_S = 1.0  # how often a barred node, or one that has a rival, is told so


def notice(sealing: Sealer, peer: Peer, to: Card, body: bytes) -> Datagram:
    """Return a notice for a peer, where a card of its has it."""
    return Datagram(to.address, to.gossip_port, sealing.to_pair(NOTICE, peer, body))


def duplicate_body(session: bytes, rival: Card) -> bytes:
    """Return the body that tells the process of a session of the rival's card."""
    body: bytes = msgpack.packb([session, rival.raw, rival.signature])
    return body


def read_duplicate(body: bytes) -> tuple[bytes, Card]:
    """Return the session meant and the rival's card; raises RemoteError if malformed."""
    session, raw, signature = validation.array(validation.unpack(body), 3)
    card = unpack_card(
        validation.octets_to(raw, limits.CARD_SIZE_MAX), validation.octets(signature, 64)
    )
    return validation.octets(session, SESSION_SIZE), card
