"""A node's key pairs: Ed25519 (RFC 8032) and X25519 (RFC 7748).

The first signs, the second agrees on keys. The node id is the head of the hash of the signing
key, so an identity can't be claimed without its private key. Does not: store keys.
"""

from __future__ import annotations

from collections.abc import Callable

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from overlay.model import NodeId, node_id_of
from overlay.wire.identity.key_pair import KeyPair

IDENTITY_SIZE = 64


class Identity:
    """The private keys of one node."""

    def __init__(self, sign_private: bytes, seal_private: bytes) -> None:
        self._sign_raw = sign_private
        self._seal_raw = seal_private
        self._sign = Ed25519PrivateKey.from_private_bytes(sign_private)
        self.seal_pair = KeyPair(seal_private)
        self.sign_public = self._sign.public_key().public_bytes_raw()
        self.seal_public = self.seal_pair.public
        self.node_id: NodeId = node_id_of(self.sign_public)

    @classmethod
    def generate(cls, random_bytes: Callable[[int], bytes]) -> Identity:
        """Return a new identity from a source of secret random bytes."""
        return cls(random_bytes(32), random_bytes(32))

    @classmethod
    def from_bytes(cls, raw: bytes) -> Identity:
        """Return a stored identity; raises ValueError for a wrong size."""
        if len(raw) != IDENTITY_SIZE:
            raise ValueError(f"an identity has {IDENTITY_SIZE} bytes, not {len(raw)}")
        return cls(raw[:32], raw[32:])

    def to_bytes(self) -> bytes:
        """Return the private keys, for `from_bytes`: a secret."""
        return self._sign_raw + self._seal_raw

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of a message."""
        return self._sign.sign(message)

    def agree(self, seal_public: bytes) -> bytes:
        """Return the 32-byte secret shared with the holder of a public key.

        Raises ValueError for a key of low order, which would make the result predictable.
        """
        return self.seal_pair.agree(seal_public)


def derive_bytes(secret: bytes, salt: bytes, info: bytes) -> bytes:
    """Return 32 bytes by HKDF-SHA256 (RFC 5869)."""
    return HKDF(hashes.SHA256(), 32, salt, info).derive(secret)
