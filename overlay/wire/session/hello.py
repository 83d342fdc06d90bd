"""The body of a hello: sessions, and the sender's card and keys.

Owns: its layout, and the checks that need no state. Does not: know the handshake (`sessions`).
"""

from __future__ import annotations

from typing import NamedTuple

import msgpack

from overlay import limits
from overlay.core.protocol.records import KeyId
from overlay.errors import RemoteError
from overlay.model import Card, NodeId
from overlay.wire.codec import validation
from overlay.wire.codec.records import key_id, unpack_card
from overlay.wire.identity.signatures import KeySigner
from overlay.wire.session.peers import SESSION_SIZE

BAD_CARD = "bad-card"
UNCERTIFIED = "uncertified"


class SessionHello(NamedTuple):
    """The content of a handshake datagram."""

    session: bytes
    echo: bytes
    done: bool  # the sender has accepted our session: no answer needed
    card: Card
    held: tuple[KeyId, ...]  # the cluster keys that the sender can open with


def hello_body(hello: SessionHello) -> bytes:
    """Return the bytes to seal."""
    card = hello.card
    body: bytes = msgpack.packb(
        [hello.session, hello.echo, hello.done, card.raw, card.signature, hello.held]
    )
    return body


def read_hello(sender: NodeId, signer: KeySigner, body: bytes) -> SessionHello:
    """Return the content of an opened body.

    Raises RemoteError if it is not the sender's own statement.
    """
    session, echo, done, raw, signature, held = validation.array(validation.unpack(body), 6)
    card = unpack_card(
        validation.octets_to(raw, limits.CARD_SIZE_MAX), validation.octets(signature, 64)
    )
    if not signer.anchor.verify_certificate(card):  # first: only certified cards' keys are cached
        raise RemoteError(UNCERTIFIED)
    if card.node_id != sender or not signer.is_signed_by_subject(card):
        raise RemoteError(BAD_CARD)
    return SessionHello(
        validation.octets(session, SESSION_SIZE),
        validation.octets(echo, SESSION_SIZE),
        validation.boolean(done),
        card,
        tuple(key_id(item) for item in validation.items(held, limits.KEYS_HELD_MAX)),
    )
