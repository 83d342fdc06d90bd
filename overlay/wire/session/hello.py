"""The body of a hello: a session, the echo of the other side's, the sender's card and keys.

Owns its shape and the checks that need no state. Must not know what a hello leads to (`sessions`).
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
    """What a handshake says."""

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
    """Return what an opened body says; raises RemoteError if it is not the sender's own word."""
    session, echo, done, raw, signature, held = validation.array(validation.unpack(body), 6)
    card = unpack_card(
        validation.octets_to(raw, limits.CARD_SIZE_MAX), validation.octets(signature, 64)
    )
    if not signer.anchor.verify_certificate(
        card
    ):  # first: the key of a certified card alone is remembered
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
