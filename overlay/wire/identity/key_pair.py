"""An X25519 key pair (RFC 7748), static or ephemeral."""

from __future__ import annotations

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey


class KeyPair:
    """An X25519 key pair, made from 32 private bytes."""

    __slots__ = ("_private", "public")

    def __init__(self, private: bytes) -> None:
        self._private = X25519PrivateKey.from_private_bytes(private)
        self.public = self._private.public_key().public_bytes_raw()

    def agree(self, public: bytes) -> bytes:
        """Return the 32-byte secret shared with the holder of a public key.

        Raises ValueError for a key of low order, which would make the result predictable.
        """
        return self._private.exchange(X25519PublicKey.from_public_bytes(public))
