"""The cluster's authority: one Ed25519 key whose signature makes a member.

Owns: the statements that the authority signs, each under a context of its own, and their
verification against the *trust anchor*, the public half, which every token and member has. The
cluster's id is the head of the anchor's hash, so nobody can claim another cluster's. Does not:
know who holds the key, or where it is stored.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import replace

import msgpack
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from overlay import limits
from overlay.core.protocol.records import (
    AuthorityHolderRecord,
    ForgottenNode,
    JoinToken,
    TokenRevocation,
)
from overlay.model import Card, Certificate, Ip, NodeId
from overlay.wire.identity.keyring import ClusterKey

CLUSTER_ID_SIZE = 16
KEY_SIZE = 32
_CERTIFICATE = b"overlayd/1 certificate\0"
_HOLDER = b"overlayd/1 holder\0"
_PRESENCE = b"overlayd/1 presence\0"
_TOKEN = b"overlayd/1 invitation\0"
_REVOCATION = b"overlayd/1 revocation\0"
_FORGOTTEN = b"overlayd/1 forgotten\0"
_GENERATION = b"overlayd/1 generation\0"


class TrustAnchor:
    """Verifies statements of the authority."""

    def __init__(self, public: bytes) -> None:
        self.public = public
        self.cluster_id = hashlib.sha256(public).digest()[:CLUSTER_ID_SIZE]
        self._key = Ed25519PublicKey.from_public_bytes(public)
        self._certified: dict[NodeId, bytes] = {}

    def verify_certificate(self, card: Card) -> bool:
        """Return whether a card's certificate is authentic for its keys and name.

        Not whether it is in force now: that is checked only where a node is admitted.
        """
        certificate = card.certificate
        if certificate is None:
            return False
        body = _certificate_body(card.sign_key, card.seal_key, card.name, certificate)
        known = certificate.signature + body
        if self._certified.get(card.node_id) == known:
            return True
        if not self._signed(_CERTIFICATE + body, certificate.signature):
            return False
        # Cached only after success, and the members are bounded, so the cache is.
        self._certified[card.node_id] = known
        return True

    def verify_holder(self, node_id: NodeId, holder: AuthorityHolderRecord) -> bool:
        """Return whether a node proves that it holds the authority."""
        return self._signed(_HOLDER + node_id, holder.proof)

    def verify_presence(self, proof: bytes, nonce: bytes, seal_key: bytes) -> bool:
        """Return whether a holder of the authority answered this nonce.

        `seal_key` is the holder's, which the proof binds.
        """
        return self._signed(_PRESENCE + nonce + seal_key, proof)

    def verify_token(self, token: JoinToken) -> bool:
        """Return whether the authority signed a token."""
        return self._signed(_TOKEN + _token_body(token), token.signature)

    def verify_revocation(self, revocation: TokenRevocation) -> bool:
        """Return whether the authority revoked a token."""
        return self._signed(_REVOCATION + revocation.token_id, revocation.signature)

    def verify_forgotten(self, forgotten: ForgottenNode) -> bool:
        """Return whether the authority declared a node forgotten."""
        return self._signed(_FORGOTTEN + forgotten.node_id, forgotten.warrant)

    def verify_key(self, key: ClusterKey) -> bool:
        """Return whether the authority signed a cluster key."""
        return self._signed(_GENERATION + _key_body(key), key.warrant)

    def _signed(self, message: bytes, signature: bytes) -> bool:
        try:
            self._key.verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class Authority:
    """The authority's private key.

    Its holder can admit any host, so it is never shown.
    """

    def __init__(self, private: bytes) -> None:
        self._raw = private
        self._key = Ed25519PrivateKey.from_private_bytes(private)
        self.anchor = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, random_bytes: Callable[[int], bytes]) -> Authority:
        """Return a new authority from a source of secret random bytes."""
        return cls(random_bytes(KEY_SIZE))

    def to_bytes(self) -> bytes:
        """Return the private key, for the constructor: a secret."""
        return self._raw

    def sign_certificate(
        self, sign_key: bytes, seal_key: bytes, name: str, address: Ip, now_s: float
    ) -> Certificate:
        """Return a member's certificate; `now_s` is Unix time in seconds."""
        draft = Certificate(
            address,
            int(now_s) - limits.CERTIFICATE_EARLY_S,
            int(now_s) + limits.CERTIFICATE_VALID_S,
            b"",
        )
        body = _certificate_body(sign_key, seal_key, name, draft)
        return replace(draft, signature=self._key.sign(_CERTIFICATE + body))

    def sign_holder(self, node_id: NodeId) -> AuthorityHolderRecord:
        """Return a node's proof that it holds this key."""
        return AuthorityHolderRecord(self._key.sign(_HOLDER + node_id))

    def sign_presence(self, nonce: bytes, seal_key: bytes) -> bytes:
        """Return the proof of presence in answer to a joiner's nonce.

        It binds the holder's seal key.
        """
        return self._key.sign(_PRESENCE + nonce + seal_key)

    def sign_token(self, token: JoinToken) -> JoinToken:
        """Return a token's record, signed."""
        signature = self._key.sign(_TOKEN + _token_body(token))
        return replace(token, signature=signature)

    def sign_revocation(self, token_id: bytes) -> TokenRevocation:
        """Return the revocation of a token."""
        return TokenRevocation(token_id, self._key.sign(_REVOCATION + token_id))

    def sign_forgotten(self, node_id: NodeId) -> ForgottenNode:
        """Return the signed declaration that a node is gone permanently."""
        return ForgottenNode(node_id, self._key.sign(_FORGOTTEN + node_id))

    def make_key(self, generation: int, secret: bytes, now_s: float) -> ClusterKey:
        """Return a new cluster key; `now_s` is Unix time in seconds."""
        draft = ClusterKey(generation, int(now_s), secret, b"")
        return replace(draft, warrant=self._key.sign(_GENERATION + _key_body(draft)))


def _key_body(key: ClusterKey) -> bytes:
    digest = hashlib.sha256(key.secret).digest()
    body: bytes = msgpack.packb([key.generation, key.made_s, digest])
    return body


def _certificate_body(
    sign_key: bytes, seal_key: bytes, name: str, certificate: Certificate
) -> bytes:
    body: bytes = msgpack.packb(
        [
            sign_key,
            seal_key,
            name,
            certificate.address,
            certificate.not_before_s,
            certificate.not_after_s,
        ]
    )
    return body


def _token_body(token: JoinToken) -> bytes:
    body: bytes = msgpack.packb(
        [
            token.token_id,
            token.join_key,
            token.verifier,
            token.label,
            token.created_s,
            token.expires_s,
            token.uses_max,
        ]
    )
    return body
