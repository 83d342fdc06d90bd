"""A process's statement about itself, in the two messages of a handshake and in a join.

Owns: the layout, and the checks that need no state. Does not: know the handshake (`handshakes`).
"""

from __future__ import annotations

from typing import NamedTuple

import msgpack

from overlay import limits
from overlay.core.protocol.records import KeyId
from overlay.errors import RemoteError
from overlay.model import Card
from overlay.wire.codec import validation
from overlay.wire.codec.cards import unpack_card
from overlay.wire.codec.records import key_id
from overlay.wire.identity.signatures import KeySigner

PROCESS_SIZE = 8
NO_PROCESS = bytes(PROCESS_SIZE)
BAD_CARD = "bad-card"
UNCERTIFIED = "uncertified"
CERTIFICATE_EXPIRED = "certificate-expired"


class Statement(NamedTuple):
    """The statement of a peer's process about itself in a handshake."""

    number: int  # the index by which it finds the session or handshake
    process: bytes  # drawn at its start
    card: Card
    held: frozenset[KeyId]  # cluster keys


class Join(NamedTuple):
    """A first contact: the sender's card, and the process whose join it answers."""

    process: bytes
    echo: bytes  # zeros: asks for an answer
    card: Card


def statement_body(statement: Statement, *, is_banned: bool = False) -> bytes:
    """Return the payload of a handshake message.

    `is_banned` tells the receiver that it is forgotten here; there is no session then.
    """
    card = statement.card
    body: bytes = msgpack.packb(
        [
            statement.number,
            statement.process,
            card.raw,
            card.signature,
            sorted(statement.held),
            is_banned,
        ]
    )
    return body


def read_statement(signer: KeySigner, body: bytes, known: Card | None) -> tuple[Statement, bool]:
    """Return what the other process says, and whether it bans this node.

    `known` is a card that was verified before. Raises RemoteError if a card is not authentic.
    """
    index, process, raw, signature, held, is_banned = validation.array(validation.unpack(body), 6)
    card = _read_card(signer, raw, signature, known)
    keys = [key_id(item) for item in validation.items(held, limits.KEYS_HELD_MAX)]
    statement = Statement(
        validation.integer(index, 2**32 - 1),
        validation.octets(process, PROCESS_SIZE),
        card,
        frozenset(KeyId(*each) for each in keys),
    )
    return statement, validation.boolean(is_banned)


def join_body(join: Join) -> bytes:
    """Return the bytes of a join to seal."""
    card = join.card
    body: bytes = msgpack.packb([join.process, join.echo, card.raw, card.signature])
    return body


def read_join(signer: KeySigner, body: bytes, known: Card | None) -> Join:
    """Return the content of an opened join; raises RemoteError if its card is not authentic."""
    process, echo, raw, signature = validation.array(validation.unpack(body), 4)
    return Join(
        validation.octets(process, PROCESS_SIZE),
        validation.octets(echo, PROCESS_SIZE),
        _read_card(signer, raw, signature, known),
    )


def duplicate_body(other: Card) -> bytes:
    """Return the content that shows a process the card of another host with its identity."""
    body: bytes = msgpack.packb([other.raw, other.signature])
    return body


def read_duplicate(body: bytes) -> Card:
    """Return the other host's card; it is not verified here."""
    raw, signature = validation.array(validation.unpack(body), 2)
    return unpack_card(
        validation.octets_to(raw, limits.CARD_SIZE_MAX), validation.octets(signature, 64)
    )


def require_in_force(card: Card, unix_s: float) -> None:
    """Raise RemoteError if the certificate of an unknown node's card is not valid at a time."""
    certificate = card.certificate
    assert certificate is not None, "a handshake's card is certified"
    if not certificate.not_before_s <= unix_s < certificate.not_after_s:
        raise RemoteError(CERTIFICATE_EXPIRED)


def _read_card(signer: KeySigner, raw: object, signature: object, known: Card | None) -> Card:
    card = unpack_card(
        validation.octets_to(raw, limits.CARD_SIZE_MAX), validation.octets(signature, 64)
    )
    if known is not None and (card.raw, card.signature) == (known.raw, known.signature):
        return known
    if not signer.anchor.verify_certificate(card):  # first: only certified cards' keys are cached
        raise RemoteError(UNCERTIFIED)
    if not signer.is_signed_by_subject(card):
        raise RemoteError(BAD_CARD)
    return card
