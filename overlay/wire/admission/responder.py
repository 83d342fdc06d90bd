"""The member's side of the join handshake."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable
from typing import Protocol

from overlay import limits
from overlay.core.protocol.records import JoinToken
from overlay.errors import RemoteError
from overlay.model import Card, Ip, NodeId, node_id_of
from overlay.wire.admission.cipher import JoinCipher
from overlay.wire.admission.messages import (
    KNOCK_PADDING_SIZE,
    NO_INVITATION,
    NOBODY,
    NONCE_SIZE,
    REQUEST_PADDING_SIZE,
    STALE_ADMISSION,
    JoinGrant,
    JoinRefusal,
    JoinRequest,
    is_signed,
    seal_key_of,
    token_id_of,
)
from overlay.wire.codec import validation
from overlay.wire.codec.contact_header import read_contact_header
from overlay.wire.codec.datagram import JOIN_HELLO, OWN_DATAGRAM, Datagram
from overlay.wire.handshake.hello import BAD_CARD
from overlay.wire.handshake.key_transfer import key_fields
from overlay.wire.identity.authority import Authority
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.token import verifier_of

BAD_TICKET = "bad-ticket"


class AdmissionPolicy(Protocol):
    """The state that a member needs to answer applicants.

    The agent implements it from the records.
    """

    def invitation(self, token_id: bytes) -> JoinToken | None:
        """Return the token's authentic record, whether it is in force or not."""

    def refusal(self, token: JoinToken, applicant: NodeId) -> JoinRefusal | None:
        """Return why a token does not admit a node, or None if it does."""

    def holders(self) -> list[tuple[Ip, int]]:
        """Return the addresses and ports of other holders of the authority."""

    def authority(self) -> Authority | None:
        """Return the authority, if it is held here."""

    def admit(self, token: JoinToken, request: JoinRequest) -> JoinGrant | JoinRefusal | None:
        """Record the admission durably and return the grant, or why the host is refused.

        None if neither is possible now.
        """


class JoinResponder:
    """The member's side: answers knocks, and admits if it is a holder."""

    def __init__(
        self,
        identity: Identity,
        cluster_id: bytes,
        card: Callable[[], Card],
        policy: AdmissionPolicy,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._cipher = JoinCipher(identity, cluster_id, random_bytes)
        self._identity = identity
        self._card = card
        self._policy = policy
        self._cookie_key = random_bytes(32)

    def open(self, data: bytes) -> list[Datagram]:
        """Return the answer to an applicant's datagram.

        Raises RemoteError with the reason of the drop.
        """
        header = read_contact_header(data)
        if header.sender == self._identity.node_id:
            raise RemoteError(OWN_DATAGRAM)
        token_id = token_id_of(header, data)
        token = self._policy.invitation(token_id)
        if token is None:
            raise RemoteError(NO_INVITATION)
        is_knock = header.kind == JOIN_HELLO
        recipient = NOBODY if is_knock else self._identity.node_id
        body = self._cipher.open(header, token.join_key, data, recipient)
        if is_knock:
            return self._answer_hello(token, header.sender, body)
        return self._answer_request(token, header.sender, seal_key_of(data), body)

    def _answer_hello(
        self, token: JoinToken, applicant: NodeId, body: tuple[object, ...]
    ) -> list[Datagram]:
        kind, raw_nonce, raw_address, raw_port, padding = validation.array(body, 5)
        validation.integer(kind, 1, 1)
        validation.octets(padding, KNOCK_PADDING_SIZE)
        nonce = validation.octets(raw_nonce, NONCE_SIZE)
        address, port = validation.ip(raw_address), validation.integer(raw_port, 65535, 1)
        refusal = self._policy.refusal(token, applicant)
        if refusal is not None:
            answer: list[object] = [3, nonce, int(refusal)]
        else:
            card = self._card()
            authority = self._policy.authority()
            proof = b"" if authority is None else authority.sign_presence(nonce, card.seal_key)
            cookie = self._cookie(nonce, applicant)
            holders = [list(at) for at in self._policy.holders()[: limits.HOLDERS_REPORTED_MAX]]
            answer = [2, nonce, cookie, card.raw, card.signature, proof, holders]
        data = self._cipher.seal_hello(token.token_id, token.join_key, applicant, answer)
        return [Datagram(address, port, data)]

    def _answer_request(
        self, token: JoinToken, applicant: NodeId, seal_key: bytes, body: tuple[object, ...]
    ) -> list[Datagram]:
        kind, raw_nonce, cookie, ticket, raw_key, *rest, signature, pad = validation.array(body, 10)
        validation.integer(kind, 4, 4)
        validation.octets(pad, REQUEST_PADDING_SIZE)
        nonce = validation.octets(raw_nonce, NONCE_SIZE)
        sign_key = validation.octets(raw_key, 32)
        request = JoinRequest(
            sign_key,
            seal_key,
            validation.name(rest[0]),
            validation.ip(rest[1]),
            validation.integer(rest[2], 65535, 1),
        )
        if not hmac.compare_digest(validation.octets(cookie, 16), self._cookie(nonce, applicant)):
            raise RemoteError(STALE_ADMISSION)
        if node_id_of(sign_key) != applicant or not is_signed(request, nonce, signature):
            raise RemoteError(BAD_CARD)
        if verifier_of(validation.octets(ticket, 32)) != token.verifier:
            raise RemoteError(BAD_TICKET)
        decision = self._policy.refusal(token, applicant) or self._policy.admit(token, request)
        if decision is None:
            return []  # the applicant asks again
        if isinstance(decision, JoinRefusal):
            answer: list[object] = [6, nonce, int(decision)]
        else:
            one = decision.certificate
            certificate = [one.address, one.not_before_s, one.not_after_s, one.signature]
            answer = [5, nonce, certificate, key_fields(decision.key)]
        data = self._cipher.seal_request(
            token.token_id, token.join_key, (applicant, seal_key), answer
        )
        return [Datagram(request.address, request.port, data)]

    def _cookie(self, nonce: bytes, applicant: NodeId) -> bytes:
        """Return a keyed hash of nonce and applicant.

        It proves, without stored state, that this process answered the nonce.
        """
        return hashlib.blake2s(nonce + applicant, key=self._cookie_key, digest_size=16).digest()
