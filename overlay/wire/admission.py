"""The join handshake, by which a host with a token becomes a member.

```
applicant                                  member
  knock     [1, nonce, address, port,  -->          any member: it has the token's join key
             padding]
                                       <--  way     [2, nonce, cookie, card, signature, proof,
                                                     holders]   or refusal [3, nonce, code]
  request   [4, nonce, cookie, ticket, key,         a holder of the authority, whose proof
             name, address, port, sig, pad] ->          signs the nonce and its seal key
                                       <--  welcome [5, nonce, certificate, cluster key]
                                                     or refusal [6, nonce, code]
```
Sans-IO: datagrams in, datagrams out. Knocks are sealed under the join key (*door* in PROTOCOL.md),
which any member has; requests also under the two nodes' own keys, so that neither the ticket nor
the cluster's secret is visible to the thief of a token or to a member without the authority. Until
the request, members keep no state.
"""

from __future__ import annotations

import enum
import hashlib
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import msgpack
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from overlay import limits
from overlay.core.protocol.records import JoinToken
from overlay.errors import RemoteError
from overlay.model import Card, Certificate, Ip, NodeId, node_id_of
from overlay.wire.codec import datagram, validation
from overlay.wire.codec.cards import unpack_card, unpack_certificate
from overlay.wire.codec.contact_header import ContactHeader, new_header, read_contact_header
from overlay.wire.codec.datagram import JOIN_HELLO, JOIN_REQUEST, OWN_DATAGRAM, Datagram
from overlay.wire.handshake.box import derive, open_box, seal
from overlay.wire.handshake.hello import BAD_CARD
from overlay.wire.handshake.key_transfer import UNWARRANTED_KEY, key_fields, read_key
from overlay.wire.identity.authority import Authority, TrustAnchor
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.keyring import ClusterKey
from overlay.wire.identity.signatures import KeySigner
from overlay.wire.identity.token import Token, verifier_of

NONCE_SIZE = 16
NO_INVITATION = "unknown-token"
STALE_ADMISSION = "stale-admission"
BAD_TICKET = "bad-ticket"
_PADDING_SIZE = 860  # a knock is no smaller than its answers, so it amplifies nothing
_REQUEST_PADDING_SIZE = 80  # neither does a request
_REQUEST = b"overlayd/1 request\0"
_NOBODY = bytes(16)
_CLEAR_SIZE = {JOIN_HELLO: limits.TOKEN_ID_SIZE, JOIN_REQUEST: limits.TOKEN_ID_SIZE + 32}


class JoinRefusal(enum.IntEnum):
    """Why this host is not admitted. Wire numbers: append only."""

    EXPIRED = 1
    USED_UP = 2
    REVOKED = 3
    BARRED = 4
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
    """What makes an applicant a member."""

    certificate: Certificate
    key: ClusterKey  # the one in use


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


class _JoinCipher:
    """Seals and opens the join handshake, for both sides."""

    def __init__(
        self, identity: Identity, cluster_id: bytes, random_bytes: Callable[[int], bytes]
    ) -> None:
        self.identity = identity
        self.cluster_id = cluster_id
        self.random_bytes = random_bytes

    def seal_hello(
        self, token_id: bytes, join_key: bytes, recipient: bytes, body: list[object]
    ) -> bytes:
        """Return a datagram that every holder of the join key can open."""
        header = self._header(JOIN_HELLO)
        context = self.cluster_id + recipient
        return seal(_hello_key(join_key), header, context, msgpack.packb(body), token_id)

    def seal_request(
        self, token_id: bytes, join_key: bytes, peer: tuple[NodeId, bytes], body: list[object]
    ) -> bytes:
        """Return a datagram that one peer, given by id and seal key, can open."""
        other, seal_key = peer
        key = self._pair_key(join_key, seal_key, self.identity.node_id, other)
        clear = token_id + self.identity.seal_public
        return seal(
            key, self._header(JOIN_REQUEST), self.cluster_id + other, msgpack.packb(body), clear
        )

    def open(
        self, header: ContactHeader, join_key: bytes, data: bytes, recipient: bytes
    ) -> tuple[object, ...]:
        """Return the opened body, an array; raises RemoteError."""
        size = _CLEAR_SIZE[header.kind]
        context = self.cluster_id + recipient
        if header.kind == JOIN_HELLO:
            key = _hello_key(join_key)
        else:
            key = self._pair_key(join_key, seal_key_of(data), header.sender, self.identity.node_id)
        return validation.items(validation.unpack(open_box(key, header, context, data, size)), 10)

    def _header(self, kind: int) -> ContactHeader:
        return new_header(kind, self.identity.node_id, self.random_bytes)

    def _pair_key(
        self, join_key: bytes, seal_key: bytes, sender: NodeId, recipient: NodeId
    ) -> AESGCM:
        try:
            shared = self.identity.agree(seal_key)
        except ValueError:
            raise RemoteError(BAD_CARD) from None
        return derive(shared + join_key, b"", b"overlayd/1 admit" + sender + recipient)


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
        self._cipher = _JoinCipher(identity, cluster_id, random_bytes)
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
        recipient = _NOBODY if is_knock else self._identity.node_id
        body = self._cipher.open(header, token.join_key, data, recipient)
        if is_knock:
            return self._answer_hello(token, header.sender, body)
        return self._answer_request(token, header.sender, seal_key_of(data), body)

    def _answer_hello(
        self, token: JoinToken, applicant: NodeId, body: tuple[object, ...]
    ) -> list[Datagram]:
        kind, raw_nonce, raw_address, raw_port, padding = validation.array(body, 5)
        validation.integer(kind, 1, 1)
        validation.octets(padding, _PADDING_SIZE)
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
        validation.octets(pad, _REQUEST_PADDING_SIZE)
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
        if node_id_of(sign_key) != applicant or not _is_signed(request, nonce, signature):
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


class JoinInitiator:
    """The applicant's side: finds a holder of the authority and asks it."""

    def __init__(
        self,
        identity: Identity,
        token: Token,
        *,
        name: str,
        address: Ip,
        random_bytes: Callable[[int], bytes],
        now_s: float,
    ) -> None:
        """`now_s` is this host's Unix time in seconds, which is compared with certificates."""
        self._token = token
        self._now_s = now_s
        self._anchor = TrustAnchor(token.anchor)
        self._signer = KeySigner(identity, self._anchor)
        self._cipher = _JoinCipher(identity, token.cluster_id, random_bytes)
        self._identity = identity
        self._name = name
        self._address = address
        self._nonce = random_bytes(NONCE_SIZE)
        self._join_key = token.join_key
        self.grant: JoinGrant | None = None
        self.granted_by: NodeId | None = None
        self.refusal: JoinRefusal | None = None
        self.answered: dict[NodeId, Card] = {}  # members that answered the knock
        self.holders: dict[tuple[Ip, int], None] = {}  # holders that they named
        # How many seconds this host's clock is ahead of a holder's (negative: behind): exact after
        # the grant, and until then the least that its certificate proves.
        self.clock_ahead_s = 0.0

    def hello(self, address: Ip, port: int) -> Datagram:
        """Return a knock, for a member or a possible one."""
        port_here, padding = self._token.gossip_port, bytes(_PADDING_SIZE)
        body: list[object] = [1, self._nonce, self._address, port_here, padding]
        data = self._cipher.seal_hello(self._token.token_id, self._join_key, _NOBODY, body)
        return Datagram(address, port, data)

    def open(self, data: bytes) -> list[Datagram]:
        """Handle a member's answer; return what to send next.

        Raises RemoteError with the reason of the drop.
        """
        header = read_contact_header(data)
        own = self._identity.node_id
        if header.sender == own:
            raise RemoteError(OWN_DATAGRAM)
        if token_id_of(header, data) != self._token.token_id:
            raise RemoteError(NO_INVITATION)
        body = self._cipher.open(header, self._join_key, data, own)
        if len(body) < 2 or body[1] != self._nonce:
            raise RemoteError(STALE_ADMISSION)
        match (header.kind, body[0]):
            case (datagram.JOIN_HELLO, 2):
                return self._handle_challenge(header.sender, body)
            case (datagram.JOIN_REQUEST, 5):
                self._handle_grant(header.sender, body)
            case (datagram.JOIN_HELLO, 3) | (datagram.JOIN_REQUEST, 6):
                self._handle_refusal(body)
            case _:
                validation.refuse_malformed()
        return []

    def _handle_challenge(self, sender: NodeId, body: tuple[object, ...]) -> list[Datagram]:
        _, _, cookie, raw, signature, proof, holders = validation.array(body, 7)
        card = unpack_card(
            validation.octets_to(raw, limits.CARD_SIZE_MAX), validation.octets(signature, 64)
        )
        if card.node_id != sender or not self._signer.verify_card(card):
            raise RemoteError(BAD_CARD)
        self.answered[sender] = card
        for item in validation.items(holders, limits.HOLDERS_REPORTED_MAX):
            address, port = validation.array(item, 2)
            self.holders[(validation.ip(address), validation.integer(port, 65535, 1))] = None
        if not self._anchor.verify_presence(
            validation.octets_to(proof, 64), self._nonce, card.seal_key
        ):
            return []
        if self._is_behind(card):
            return []  # no session would follow, so do not use up the token
        return [self._request(card, validation.octets(cookie, 16))]

    def _is_behind(self, holder: Card) -> bool:
        """Return whether, by this host's clock, a holder's certificate is not in force yet."""
        certificate = holder.certificate
        assert certificate is not None, "a verified card has one"
        if self._now_s >= certificate.not_before_s:
            return False
        self.clock_ahead_s = self._now_s - issued_at_s(certificate)
        return True

    def _request(self, holder: Card, cookie: bytes) -> Datagram:
        own = self._identity
        request = JoinRequest(
            own.sign_public, own.seal_public, self._name, self._address, self._token.gossip_port
        )
        signature = own.sign(_request_body(request, self._nonce))
        asked = [self._name, self._address, self._token.gossip_port, signature]
        padding = bytes(_REQUEST_PADDING_SIZE)
        body = [4, self._nonce, cookie, self._token.ticket, own.sign_public, *asked, padding]
        data = self._cipher.seal_request(
            self._token.token_id, self._join_key, (holder.node_id, holder.seal_key), body
        )
        return Datagram(holder.address, holder.gossip_port, data)

    def _handle_grant(self, sender: NodeId, body: tuple[object, ...]) -> None:
        _, _, raw, fields = validation.array(body, 4)
        key = read_key(fields)
        certificate = unpack_certificate(raw)
        own = self._identity
        draft = Card(
            own.node_id, self._name, own.sign_public, own.seal_public, self._address,
            self._token.gossip_port, 0, 0, "", certificate=certificate,
        )  # fmt: skip
        if certificate is None or not self._anchor.verify_certificate(draft):
            raise RemoteError(BAD_CARD)
        if not self._anchor.verify_key(key):
            raise RemoteError(UNWARRANTED_KEY)
        self.clock_ahead_s = self._now_s - issued_at_s(certificate)
        self.grant, self.granted_by = JoinGrant(certificate, key), sender

    def _handle_refusal(self, body: tuple[object, ...]) -> None:
        _, _, code = validation.array(body, 3)
        try:
            self.refusal = JoinRefusal(validation.integer(code, 255))
        except ValueError:
            validation.refuse_malformed()


def issued_at_s(certificate: Certificate) -> int:
    """Return the issuer's Unix time, in seconds, at which it signed a certificate."""
    return certificate.not_before_s + limits.CERTIFICATE_EARLY_S


def is_join_kind(kind: int) -> bool:
    """Return whether a kind of datagram belongs to the join handshake."""
    return kind in _CLEAR_SIZE


def token_id_of(header: ContactHeader, data: bytes) -> bytes:
    """Return the token id behind the header; raises RemoteError."""
    size = _CLEAR_SIZE.get(header.kind)
    if size is None:
        raise RemoteError(datagram.UNKNOWN_KIND)
    if len(data) < limits.CONTACT_HEADER_SIZE + size + limits.TAG_SIZE:
        raise RemoteError(datagram.TOO_SHORT)
    return data[limits.CONTACT_HEADER_SIZE : limits.CONTACT_HEADER_SIZE + limits.TOKEN_ID_SIZE]


def seal_key_of(data: bytes) -> bytes:
    """Return the sender's seal key, which follows the token id."""
    start = limits.CONTACT_HEADER_SIZE + limits.TOKEN_ID_SIZE
    return data[start : start + 32]


def _hello_key(join_key: bytes) -> AESGCM:
    return derive(join_key, b"", b"overlayd/1 knock")


def _request_body(request: JoinRequest, nonce: bytes) -> bytes:
    packed: bytes = msgpack.packb([*request, nonce])
    return _REQUEST + packed


def _is_signed(request: JoinRequest, nonce: bytes, signature: object) -> bool:
    raw = validation.octets(signature, 64)
    try:
        key = Ed25519PublicKey.from_public_bytes(request.sign_key)
        key.verify(raw, _request_body(request, nonce))
    except (InvalidSignature, ValueError):
        return False
    return True
