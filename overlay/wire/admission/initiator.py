"""The applicant's side of the join handshake."""

from __future__ import annotations

from collections.abc import Callable

from overlay import limits
from overlay.errors import RemoteError
from overlay.model import Card, Certificate, Ip, NodeId
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
    request_body,
    token_id_of,
)
from overlay.wire.codec import datagram, validation
from overlay.wire.codec.cards import unpack_card, unpack_certificate
from overlay.wire.codec.contact_header import read_contact_header
from overlay.wire.codec.datagram import OWN_DATAGRAM, Datagram
from overlay.wire.handshake.hello import BAD_CARD
from overlay.wire.handshake.key_transfer import UNWARRANTED_KEY, read_key
from overlay.wire.identity.authority import TrustAnchor
from overlay.wire.identity.identity import Identity
from overlay.wire.identity.signatures import KeySigner
from overlay.wire.identity.token import Token


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
        self._cipher = JoinCipher(identity, token.cluster_id, random_bytes)
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
        port_here, padding = self._token.gossip_port, bytes(KNOCK_PADDING_SIZE)
        body: list[object] = [1, self._nonce, self._address, port_here, padding]
        data = self._cipher.seal_hello(self._token.token_id, self._join_key, NOBODY, body)
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
        signature = own.sign(request_body(request, self._nonce))
        asked = [self._name, self._address, self._token.gossip_port, signature]
        padding = bytes(REQUEST_PADDING_SIZE)
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
