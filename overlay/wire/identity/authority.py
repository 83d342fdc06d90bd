"""The cluster's authority: one Ed25519 key whose word makes a member.

Owns: what the authority signs, each kind of statement under a context of its own, and the
checking of it against the *trust anchor*, the public half, that every token and member carries.
The cluster's id is the head of the anchor's hash, so nobody can claim another cluster's.
Must not know: who keeps the key, or where.
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
_INVITATION = b"overlayd/1 invitation\0"
_REVOCATION = b"overlayd/1 revocation\0"
_FORGOTTEN = b"overlayd/1 forgotten\0"
_GENERATION = b"overlayd/1 generation\0"


class TrustAnchor:
    """Checks what the authority is said to have signed."""

    def __init__(self, public: bytes) -> None:
        self.public = public
        self.cluster_id = hashlib.sha256(public).digest()[:CLUSTER_ID_SIZE]
        self._key = Ed25519PublicKey.from_public_bytes(public)
        self._certified: dict[NodeId, bytes] = {}

    def verify_certificate(self, card: Card) -> bool:
        """Say whether the card's certificate is the authority's and for its keys and name.

        At any time: whether it is still in force is asked only where somebody is let in.
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
        # Kept only once it has proved itself, and the members are bounded: so is this.
        self._certified[card.node_id] = known
        return True

    def verify_holder(self, node_id: NodeId, holder: AuthorityHolderRecord) -> bool:
        """Say whether a node's claim to hold the authority is true."""
        return self._signed(_HOLDER + node_id, holder.proof)

    def verify_presence(self, proof: bytes, nonce: bytes, seal_key: bytes) -> bool:
        """Say whether a holder of the authority, under this seal key, answered this nonce."""
        return self._signed(_PRESENCE + nonce + seal_key, proof)

    def verify_token(self, invitation: JoinToken) -> bool:
        """Say whether a token is the authority's."""
        return self._signed(_INVITATION + _invitation_body(invitation), invitation.signature)

    def verify_revocation(self, revocation: TokenRevocation) -> bool:
        """Say whether the authority revoked the token."""
        return self._signed(_REVOCATION + revocation.token_id, revocation.signature)

    def verify_forgotten(self, forgotten: ForgottenNode) -> bool:
        """Say whether the authority declared the node gone."""
        return self._signed(_FORGOTTEN + forgotten.node_id, forgotten.warrant)

    def verify_key(self, key: ClusterKey) -> bool:
        """Say whether a cluster key is the authority's."""
        return self._signed(_GENERATION + _generation_body(key), key.warrant)

    def _signed(self, message: bytes, signature: bytes) -> bool:
        try:
            self._key.verify(signature, message)
        except (InvalidSignature, ValueError):
            return False
        return True


class Authority:
    """The authority's private key. Whoever holds it can admit anyone: it is never shown."""

    def __init__(self, private: bytes) -> None:
        self._raw = private
        self._key = Ed25519PrivateKey.from_private_bytes(private)
        self.anchor = self._key.public_key().public_bytes_raw()

    @classmethod
    def generate(cls, random_bytes: Callable[[int], bytes]) -> Authority:
        """Return a new cluster's authority from a source of secret randomness."""
        return cls(random_bytes(KEY_SIZE))

    def to_bytes(self) -> bytes:
        """Return what the constructor takes: a secret."""
        return self._raw

    def sign_certificate(
        self, sign_key: bytes, seal_key: bytes, name: str, address: Ip, now_s: float
    ) -> Certificate:
        """Return a member's certificate; `now_s` is Unix time."""
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
        """Return the answer to a joiner's nonce: here is the authority, under this seal key."""
        return self._key.sign(_PRESENCE + nonce + seal_key)

    def sign_token(self, invitation: JoinToken) -> JoinToken:
        """Return the token's record, signed."""
        signature = self._key.sign(_INVITATION + _invitation_body(invitation))
        return replace(invitation, signature=signature)

    def sign_revocation(self, token_id: bytes) -> TokenRevocation:
        """Return a token's end."""
        return TokenRevocation(token_id, self._key.sign(_REVOCATION + token_id))

    def sign_forgotten(self, node_id: NodeId) -> ForgottenNode:
        """Return the declaration that a node is gone for ever, under a warrant."""
        return ForgottenNode(node_id, self._key.sign(_FORGOTTEN + node_id))

    def make_key(self, generation: int, secret: bytes, now_s: float) -> ClusterKey:
        """Return a generation of the cluster's secret; `now_s` is Unix time."""
        draft = ClusterKey(generation, int(now_s), secret, b"")
        return replace(draft, warrant=self._key.sign(_GENERATION + _generation_body(draft)))


def _generation_body(key: ClusterKey) -> bytes:
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


def _invitation_body(invitation: JoinToken) -> bytes:
    body: bytes = msgpack.packb(
        [
            invitation.token_id,
            invitation.join_key,
            invitation.verifier,
            invitation.label,
            invitation.created_s,
            invitation.expires_s,
            invitation.uses_max,
        ]
    )
    return body
