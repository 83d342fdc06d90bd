"""Cards and certificates to and from msgpack arrays.

Owns: the bytes of a card that its node signs. Does not: sign or verify them
(`wire.identity.signatures`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgpack

from overlay import limits
from overlay.model import Card, Certificate, node_id_of
from overlay.wire.codec import validation

_PACK: Callable[[Any], bytes] = msgpack.Packer(use_bin_type=True).pack


def pack_card(card: Card) -> bytes:
    """Return the bytes of a card, for its node to sign."""
    return _PACK(
        [
            card.sign_key,
            card.seal_key,
            card.name,
            card.address,
            card.gossip_port,
            card.epoch,
            card.underlay_mtu,
            card.software,
            card.left,
            pack_certificate(card.certificate),
        ]
    )


def unpack_card(raw: bytes, signature: bytes) -> Card:
    """Return the card in `raw`; its signature is not verified here."""
    if len(raw) > limits.CARD_SIZE_MAX:
        validation.refuse_malformed()
    fields = validation.array(validation.unpack(raw), 10)
    sign_key, seal_key, name, address, port, epoch, mtu, software, left, certificate = fields
    key = validation.octets(sign_key, 32)
    return Card(
        node_id_of(key),
        validation.name(name),
        key,
        validation.octets(seal_key, 32),
        validation.host_ip(address),
        validation.integer(port, 65535, 1),
        validation.integer(epoch, 2**32),
        validation.integer(mtu, limits.IP_PACKET_SIZE_MAX, limits.UNDERLAY_MTU_MIN - 700),
        validation.text(software),
        validation.boolean(left),
        unpack_certificate(certificate),
        raw,
        signature,
    )


def pack_certificate(certificate: Certificate | None) -> list[Any]:
    """Return a certificate as an array of four; None as an empty array."""
    if certificate is None:
        return []
    return [
        certificate.address,
        certificate.not_before_s,
        certificate.not_after_s,
        certificate.signature,
    ]


def unpack_certificate(value: Any) -> Certificate | None:
    """Return the certificate in an array of four; None for an empty array."""
    if value == ():
        return None
    address, not_before_s, not_after_s, signature = validation.array(value, 4)
    return Certificate(
        validation.ip(address),
        validation.integer(not_before_s, 2**40),
        validation.integer(not_after_s, 2**40),
        validation.octets(signature, 64),
    )
