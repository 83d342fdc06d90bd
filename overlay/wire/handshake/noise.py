"""The Noise handshake IKpsk2 (Noise Protocol Framework, revision 34).

```
<- s                       the initiator knows the responder's static key
-> e, es, s, ss            the first message
<- e, ee, se, psk          the second message
```
Owns: the state machine over one handshake's two messages, and its two transport keys. Does not:
know what the payloads mean, who is trusted, or when a handshake is made. Primitives come from
`cryptography`. Randomness is an argument: the private half of an ephemeral key.
"""

from __future__ import annotations

import hashlib
import hmac
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from overlay.errors import RemoteError
from overlay.wire.codec.datagram import UNAUTHENTICATED
from overlay.wire.identity.key_pair import KeyPair

PROTOCOL_NAME = b"Noise_IKpsk2_25519_AESGCM_SHA256"
KEY_SIZE = 32
TAG_SIZE = 16
FIRST_SIZE = KEY_SIZE + (KEY_SIZE + TAG_SIZE) + TAG_SIZE  # e, encrypted s, tag of the payload
SECOND_SIZE = KEY_SIZE + TAG_SIZE  # e, tag of the payload
_EMPTY = b""
assert len(PROTOCOL_NAME) == KEY_SIZE, "a name of one hash's length is not hashed"


class TransportKeys(NamedTuple):
    """The keys of a finished handshake, by direction."""

    sending: AESGCM
    receiving: AESGCM


def nonce(counter: int) -> bytes:
    """Return the 12-byte nonce of a counter (section 12.4)."""
    return counter.to_bytes(12, "big")


class _SymmetricState:
    """Chaining key, transcript hash and cipher (section 5.2)."""

    __slots__ = ("_chaining", "_cipher", "_counter", "hash")

    def __init__(self, prologue: bytes) -> None:
        self._chaining = PROTOCOL_NAME
        self.hash = PROTOCOL_NAME
        self._cipher: AESGCM | None = None
        self._counter = 0
        self.mix_hash(prologue)

    def mix_hash(self, data: bytes) -> None:
        self.hash = hashlib.sha256(self.hash + data).digest()

    def mix_key(self, secret: bytes) -> None:
        self._chaining, key = _hkdf(self._chaining, secret, 2)
        self._set_key(key)

    def mix_ephemeral(self, public: bytes) -> None:
        """Mix an ephemeral key: with a pre-shared key also into the chain (section 9.2)."""
        self.mix_hash(public)
        self.mix_key(public)

    def mix_key_and_hash(self, secret: bytes) -> None:
        self._chaining, mixed, key = _hkdf(self._chaining, secret, 3)
        self.mix_hash(mixed)
        self._set_key(key)

    def encrypt(self, plain: bytes) -> bytes:
        assert self._cipher is not None, "IKpsk2 mixes a key before its first ciphertext"
        sealed = self._cipher.encrypt(nonce(self._counter), plain, self.hash)
        self._counter += 1
        self.mix_hash(sealed)
        return sealed

    def decrypt(self, sealed: bytes) -> bytes:
        assert self._cipher is not None, "IKpsk2 mixes a key before its first ciphertext"
        try:
            plain = self._cipher.decrypt(nonce(self._counter), sealed, self.hash)
        except InvalidTag:
            raise RemoteError(UNAUTHENTICATED) from None
        self._counter += 1
        self.mix_hash(sealed)
        return plain

    def split(self) -> tuple[AESGCM, AESGCM]:
        """Return the keys from initiator to responder, and back."""
        one, other = _hkdf(self._chaining, _EMPTY, 2)
        return AESGCM(one), AESGCM(other)

    def copy(self) -> _SymmetricState:
        made = object.__new__(_SymmetricState)
        made.hash, made._chaining = self.hash, self._chaining
        made._cipher, made._counter = self._cipher, self._counter
        return made

    def _set_key(self, key: bytes) -> None:
        self._cipher, self._counter = AESGCM(key), 0


class Initiator:
    """The side that sends the first message."""

    def __init__(
        self, static: KeyPair, ephemeral: KeyPair, responder_static: bytes, prologue: bytes
    ) -> None:
        self._static, self._ephemeral = static, ephemeral
        self._responder_static = responder_static
        self._state = _SymmetricState(prologue)
        self._state.mix_hash(responder_static)

    def write(self, payload: bytes) -> bytes:
        """Return the first message."""
        state = self._state
        state.mix_ephemeral(self._ephemeral.public)
        state.mix_key(_agree(self._ephemeral, self._responder_static))
        sealed_static = state.encrypt(self._static.public)
        state.mix_key(_agree(self._static, self._responder_static))
        return self._ephemeral.public + sealed_static + state.encrypt(payload)

    def read(self, message: bytes, psk: bytes) -> tuple[bytes, TransportKeys]:
        """Return the payload of the second message, and the keys.

        Raises RemoteError. The state stays as it was, so a forged message ends no handshake.
        """
        state, ephemeral = self._state.copy(), message[:KEY_SIZE]
        state.mix_ephemeral(ephemeral)
        state.mix_key(_agree(self._ephemeral, ephemeral))
        state.mix_key(_agree(self._static, ephemeral))
        state.mix_key_and_hash(psk)
        payload = state.decrypt(message[KEY_SIZE:])
        sending, receiving = state.split()
        return payload, TransportKeys(sending, receiving)


class Responder:
    """The side that answers the first message."""

    def __init__(self, static: KeyPair, prologue: bytes) -> None:
        self._static = static
        self._state = _SymmetricState(prologue)
        self._state.mix_hash(static.public)
        self.initiator_static = _EMPTY
        self.initiator_ephemeral = _EMPTY

    def read(self, message: bytes) -> bytes:
        """Return the payload of the first message; raises RemoteError.

        It is from the holder of `initiator_static`, but may be a recording.
        """
        state, ephemeral = self._state, message[:KEY_SIZE]
        sealed_static = message[KEY_SIZE : FIRST_SIZE - TAG_SIZE]
        state.mix_ephemeral(ephemeral)
        state.mix_key(_agree(self._static, ephemeral))
        self.initiator_static = state.decrypt(sealed_static)
        state.mix_key(_agree(self._static, self.initiator_static))
        self.initiator_ephemeral = ephemeral
        return state.decrypt(message[FIRST_SIZE - TAG_SIZE :])

    def write(self, ephemeral: KeyPair, psk: bytes, payload: bytes) -> tuple[bytes, TransportKeys]:
        """Return the second message, and the keys; raises RemoteError for a low-order key."""
        state = self._state
        state.mix_ephemeral(ephemeral.public)
        state.mix_key(_agree(ephemeral, self.initiator_ephemeral))
        state.mix_key(_agree(ephemeral, self.initiator_static))
        state.mix_key_and_hash(psk)
        sealed = state.encrypt(payload)
        receiving, sending = state.split()
        return ephemeral.public + sealed, TransportKeys(sending, receiving)


def _agree(own: KeyPair, public: bytes) -> bytes:
    """Return the shared secret; raises RemoteError for a key of low order."""
    try:
        return own.agree(public)
    except ValueError:
        raise RemoteError(UNAUTHENTICATED) from None


def _hkdf(chaining: bytes, secret: bytes, count: int) -> list[bytes]:
    """Return so many outputs of Noise's HKDF (section 4.3)."""
    temporary = hmac.digest(chaining, secret, "sha256")
    found: list[bytes] = []
    for number in range(1, count + 1):
        previous = found[-1] if found else _EMPTY
        found.append(hmac.digest(temporary, previous + bytes([number]), "sha256"))
    return found
