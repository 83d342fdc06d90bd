"""One AEAD box with a contact header: joins and admissions."""

from __future__ import annotations

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from overlay import limits
from overlay.errors import RemoteError
from overlay.wire.codec.contact_header import ContactHeader
from overlay.wire.codec.datagram import UNAUTHENTICATED
from overlay.wire.identity.identity import derive_bytes


def seal(
    key: AESGCM, header: ContactHeader, context: bytes, plain: bytes, clear: bytes = b""
) -> bytes:
    """Return a datagram: header, `clear`, and the box.

    The box authenticates all of it, and `context`: the cluster id and the recipient's node id,
    which are not sent.
    """
    raw = header.pack() + clear
    return raw + key.encrypt(header.nonce, plain, raw + context)


def open_box(
    key: AESGCM, header: ContactHeader, context: bytes, data: bytes, clear_size: int = 0
) -> bytes:
    """Return a datagram's plaintext; raises RemoteError if not authentic."""
    start = limits.CONTACT_HEADER_SIZE + clear_size
    try:
        return key.decrypt(header.nonce, data[start:], data[:start] + context)
    except InvalidTag:
        raise RemoteError(UNAUTHENTICATED) from None


def derive(secret: bytes, salt: bytes, info: bytes) -> AESGCM:
    """Return an AES-256-GCM key by HKDF-SHA256 (RFC 5869)."""
    return AESGCM(derive_bytes(secret, salt, info))
