"""The parts of the join handshake's datagrams that both sides read and write."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

import msgpack
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from overlay import limits
from overlay.errors import RemoteError
from overlay.model import Certificate, Ip
from overlay.wire.codec import datagram, validation
from overlay.wire.codec.contact_header import ContactHeader
from overlay.wire.codec.datagram import JOIN_HELLO, JOIN_REQUEST
from overlay.wire.identity.keyring import ClusterKey

NONCE_SIZE = 16
NO_INVITATION = "unknown-token"
STALE_ADMISSION = "stale-admission"
KNOCK_PADDING_SIZE = 860  # a knock is no smaller than its answers, so it amplifies nothing
REQUEST_PADDING_SIZE = 80  # neither does a request
NOBODY = bytes(16)
CLEAR_SIZE = {JOIN_HELLO: limits.TOKEN_ID_SIZE, JOIN_REQUEST: limits.TOKEN_ID_SIZE + 32}
_REQUEST = b"overlayd/1 request\0"


class JoinRefusal(enum.IntEnum):
    """Why this host is not admitted. Wire numbers: append only."""

    EXPIRED = 1
    USED_UP = 2
    REVOKED = 3
    BANNED = 4
    NAME_TAKEN = 5  # by another living node; older applicants drop it and time out


class JoinRequest(NamedTuple):
    """The identity and address that an applicant wants certified."""

    sign_key: bytes
    seal_key: bytes
    name: str
    address: Ip
    port: int


@dataclass(frozen=True, slots=True)
class JoinGrant:
    """The answer that makes an applicant a member."""

    certificate: Certificate
    key: ClusterKey  # the one in use


def is_join_kind(kind: int) -> bool:
    """Return whether a kind of datagram belongs to the join handshake."""
    return kind in CLEAR_SIZE


def token_id_of(header: ContactHeader, data: bytes) -> bytes:
    """Return the token id behind the header; raises RemoteError."""
    size = CLEAR_SIZE.get(header.kind)
    if size is None:
        raise RemoteError(datagram.UNKNOWN_KIND)
    if len(data) < limits.CONTACT_HEADER_SIZE + size + limits.TAG_SIZE:
        raise RemoteError(datagram.TOO_SHORT)
    return data[limits.CONTACT_HEADER_SIZE : limits.CONTACT_HEADER_SIZE + limits.TOKEN_ID_SIZE]


def seal_key_of(data: bytes) -> bytes:
    """Return the sender's seal key, which follows the token id."""
    start = limits.CONTACT_HEADER_SIZE + limits.TOKEN_ID_SIZE
    return data[start : start + 32]


def request_body(request: JoinRequest, nonce: bytes) -> bytes:
    """Return what an applicant signs."""
    packed: bytes = msgpack.packb([*request, nonce])
    return _REQUEST + packed


def is_signed(request: JoinRequest, nonce: bytes, signature: object) -> bool:
    """Return whether a request is signed by its own key; raises RemoteError if malformed."""
    raw = validation.octets(signature, 64)
    try:
        key = Ed25519PublicKey.from_public_bytes(request.sign_key)
        key.verify(raw, request_body(request, nonce))
    except (InvalidSignature, ValueError):
        return False
    return True
