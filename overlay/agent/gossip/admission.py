"""Admission of new hosts: join tokens and their uses, derived from the records.

Owns: the state of a token, counting its uses, and issuing certificates if this host holds the
authority. Implements `wire.admission.responder.AdmissionPolicy`. Does not: know HTTP or sockets.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from overlay import limits
from overlay.agent.gossip.admission_rate import AdmissionRate
from overlay.agent.gossip.authority.holders import AuthorityHolders
from overlay.agent.gossip.service import GossipService
from overlay.agent.process.event_log import EventLog
from overlay.agent.state import membership_documents
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    Admission,
    JoinToken,
    Key,
    TokenRevocation,
    key_of,
)
from overlay.errors import ConflictError, NotFoundError, OverlayError
from overlay.model import Card, Ip, NodeId, ip_text, node_id_of, node_text
from overlay.wire.admission.messages import JoinGrant, JoinRefusal, JoinRequest
from overlay.wire.admission.responder import JoinResponder
from overlay.wire.identity.authority import Authority, TrustAnchor
from overlay.wire.identity.token import SECRET_SIZE, Token

_KEPT_ENDED_S = 30 * 86_400  # so that a host that uses it learns why, and `token ls` shows it


@dataclass(slots=True)
class AdmissionRecords:
    """The records about admission, checked against the trust anchor."""

    invitations: dict[bytes, JoinToken] = field(default_factory=dict)
    revoked: set[bytes] = field(default_factory=set)
    admitted: dict[bytes, set[NodeId]] = field(default_factory=dict)


class AdmissionService:
    """Admits hosts on behalf of one member."""

    def __init__(
        self,
        gossip: GossipService,
        holders: AuthorityHolders,
        event_log: EventLog,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        self._gossip = gossip
        self._holders = holders
        self._event_log = event_log
        self._wall_clock = wall_clock
        self._records: AdmissionRecords | None = None
        self._rate = AdmissionRate()
        # By kind, identity and origin: the record, and whether the authority signed it.
        self._checked: dict[tuple[str, bytes, NodeId], tuple[object, bool]] = {}
        cluster_id = gossip.anchor.cluster_id
        self._responder = JoinResponder(
            gossip.identity, cluster_id, lambda: gossip.card, self, os.urandom
        )
        gossip.transport.join_datagram_received.connect(self._answer_applicant)

    def _answer_applicant(self, data: bytes) -> None:
        """Answer a datagram of the join handshake; raises RemoteError for one to be dropped."""
        self._gossip.transport.send(self._responder.open(data))

    def records_changed(self) -> None:
        """Read the records again before the next use."""
        self._records = None

    # --- the policy (wire.admission.responder) ------------------------------------

    def invitation(self, token_id: bytes) -> JoinToken | None:
        """Return a token's record, valid or not, if the authority signed it."""
        return self.records().invitations.get(token_id)

    def refusal(self, invitation: JoinToken, applicant: NodeId | None) -> JoinRefusal | None:
        """Return why a token does not admit a node, or None; without a node, any new one."""
        book = self.records()
        if applicant is not None and self._gossip.node.is_forgotten(applicant):
            return JoinRefusal.BANNED
        if invitation.token_id in book.revoked:
            return JoinRefusal.REVOKED
        if invitation.expires_s and self._wall_clock() >= invitation.expires_s:
            return JoinRefusal.EXPIRED
        admitted = book.admitted.get(invitation.token_id, set())
        if invitation.uses_max and len(admitted - {applicant}) >= invitation.uses_max:
            return JoinRefusal.USED_UP
        return None

    def holders(self) -> list[tuple[Ip, int]]:
        """Return the addresses and ports of the other holders that are alive."""
        cards = (self._gossip.node.store.card(node_id) for node_id in self._holders.live())
        return [(card.address, card.gossip_port) for card in cards if card is not None]

    def authority(self) -> Authority | None:
        """Return the authority, if this host holds it."""
        return self._gossip.authority

    def admit(self, invitation: JoinToken, request: JoinRequest) -> JoinGrant | JoinRefusal | None:
        """Record the admission, durably, and return the grant; None if not possible now.

        Returns NAME_TAKEN, and records it, if another living node has the name.
        """
        authority = self._gossip.authority
        if authority is None or not self._gossip.may_write:
            return None
        node_id = node_id_of(request.sign_key)
        taken_by = self._name_owner(node_id, request)
        if taken_by is not None:
            self._event_log.record(
                "admit",
                f"refused {request.name} ({node_text(node_id)}) at {ip_text(request.address)}: "
                f"{node_text(taken_by.node_id)} at {ip_text(taken_by.address)} has that name",
                level=logging.WARNING,
                peer=request.name,
            )
            return JoinRefusal.NAME_TAKEN
        if node_id not in self.records().admitted.get(invitation.token_id, set()):
            if not self._rate.allows(invitation.token_id, self._gossip.transport.now()):
                return None  # the applicant asks again
            admission = Admission(invitation.token_id, node_id)
            try:
                self._gossip.publish(self._gossip.commit(CLUSTER_SCOPE, [admission]))
            except OverlayError as error:  # the disk rejects it: the applicant asks again
                self._event_log.record("admit", str(error), level=logging.ERROR, peer=request.name)
                return None
            self.records_changed()
            self._count_admission(invitation)
            self._event_log.record(
                "admit",
                f"admitted {request.name} ({node_text(node_id)}) at {ip_text(request.address)} "
                f"by token {invitation.token_id.hex()[:8]} {invitation.label}".rstrip(),
                peer=request.name,
            )
        certificate = authority.sign_certificate(
            request.sign_key, request.seal_key, request.name, request.address, self._wall_clock()
        )
        keyring = self._gossip.keyring
        return JoinGrant(certificate, keyring.key(keyring.sealing))

    def _count_admission(self, invitation: JoinToken) -> None:
        if self._rate.count(invitation.token_id, self._gossip.transport.now()):
            self._event_log.record(
                "admit",
                f"token {invitation.token_id.hex()[:8]} has admitted "
                f"{limits.ADMISSIONS_PER_MINUTE_MAX} hosts within a minute: further ones wait. If "
                "you do not add that many, it is stolen: overlayd token revoke "
                f"{invitation.token_id.hex()[:8]}",
                level=logging.WARNING,
            )

    def _name_owner(self, applicant: NodeId, request: JoinRequest) -> Card | None:
        """Return the card of another living node with the name that an applicant wants.

        A node at the applicant's own address does not count: the applicant's host was that node
        before it lost its state.
        """
        gossip = self._gossip
        for node_id in [gossip.node_id, *gossip.node.membership.live()]:
            card = gossip.node.store.card(node_id)
            if (
                card is not None
                and node_id != applicant
                and card.name.lower() == request.name.lower()
                and card.address != request.address
            ):
                return card
        return None

    # --- tokens -------------------------------------------------------------------------

    def create(self, *, label: str, expires_in_s: int | None, uses: int | None) -> Token:
        """Create a token; raises ConflictError if this host does not hold the authority."""
        authority = self._holders.require_authority()
        cluster = self._gossip.cluster
        now_s = int(self._wall_clock())
        token = Token(
            authority.anchor,
            os.urandom(limits.TOKEN_ID_SIZE),
            os.urandom(SECRET_SIZE),
            cluster.gossip_port,
            cluster.vxlan_port,
        )
        invitation = authority.sign_token(
            JoinToken(
                token_id=token.token_id,
                join_key=token.join_key,
                verifier=token.verifier,
                label=label,
                created_s=now_s,
                expires_s=0 if expires_in_s is None else now_s + expires_in_s,
                uses_max=uses or 0,
                signature=b"",
            )
        )
        ended = self._ended()
        own = [one for one in self._own("invitation") if one not in ended]
        if len(own) >= limits.TOKEN_COUNT_MAX:
            raise ConflictError(
                f"this host has created {len(own)} tokens, the limit",
                hint="Revoke some: overlayd token ls, overlayd token revoke ID",
            )
        self._gossip.publish(self._gossip.commit(CLUSTER_SCOPE, [invitation], ended))
        self.records_changed()
        return token

    def default_token(self) -> Token:
        """Return this holder's permanent token; create one if there is no valid one."""
        authority = self._holders.require_authority()
        state = self._gossip.state
        cluster = self._gossip.cluster
        stored = membership_documents.TOKEN.find(state)
        if stored is not None:
            token = Token(
                authority.anchor,
                stored.token_id,
                stored.secret,
                cluster.gossip_port,
                cluster.vxlan_port,
            )
            invitation = self.invitation(token.token_id)
            if invitation is not None and self.refusal(invitation, None) is None:
                return token
        token = self.create(label="default", expires_in_s=None, uses=None)
        membership_documents.TOKEN.put(
            state, membership_documents.StoredToken(token.token_id, token.secret)
        )
        return token

    def revoke(self, text: str) -> JoinToken:
        """Revoke a token by a prefix of its id.

        Raises NotFoundError for an unknown prefix, ConflictError for an ambiguous one.
        """
        authority = self._holders.require_authority()
        found = [
            invitation
            for token_id, invitation in self.records().invitations.items()
            if text and token_id.hex().startswith(text.lower())
        ]
        if not found:
            raise NotFoundError(
                f"no token with id {text!r}", hint="'overlayd token ls' lists the tokens"
            )
        if len(found) > 1:
            raise ConflictError(
                f"token id prefix {text!r} is ambiguous", hint="Use more characters"
            )
        revocation = authority.sign_revocation(found[0].token_id)
        self._gossip.publish(self._gossip.commit(CLUSTER_SCOPE, [revocation]))
        self.records_changed()
        return found[0]

    def _own(self, kind: str) -> list[Key]:
        own = self._gossip.node_id
        values = self._gossip.node.store.values(CLUSTER_SCOPE, kind)
        return [key_of(value) for origin, value in values if origin == own]

    def _ended(self) -> list[Key]:
        """Return the keys of this host's records about tokens that ended long ago."""
        book = self.records()
        long_ago = self._wall_clock() - _KEPT_ENDED_S
        kept = {
            token_id
            for token_id, one in book.invitations.items()
            if not (one.expires_s and one.expires_s < long_ago)
            and not (token_id in book.revoked and one.created_s < long_ago)
        }
        return [
            key
            for kind in ("invitation", "revocation", "admission")
            for key in self._own(kind)
            if key[1][: limits.TOKEN_ID_SIZE] not in kept
        ]

    # --- the records --------------------------------------------------------------------

    def records(self) -> AdmissionRecords:
        """Return the admission records, without those of forgotten nodes."""
        if self._records is None:
            self._records = self._read()
        return self._records

    def _read(self) -> AdmissionRecords:
        node, anchor = self._gossip.node, self._gossip.anchor
        book = AdmissionRecords()
        checked, self._checked = self._checked, {}
        for kind in ("invitation", "revocation"):
            for origin, value in node.store.values(CLUSTER_SCOPE, kind):
                if node.is_forgotten(origin) or not isinstance(value, JoinToken | TokenRevocation):
                    continue
                known = checked.get((*key_of(value), origin))
                # Also a signature that is false is checked once: a member may write very many.
                is_true = known[1] if known and known[0] == value else _is_signed(anchor, value)
                self._checked[(*key_of(value), origin)] = (value, is_true)
                if is_true and isinstance(value, JoinToken):
                    book.invitations[value.token_id] = value
                elif is_true:
                    book.revoked.add(value.token_id)
        own = [] if self._gossip.authority is None else [self._gossip.node_id]
        for origin in (*self._holders.proven(), *own):
            for admission in node.store.values_of(origin, CLUSTER_SCOPE, "admission"):
                if isinstance(admission, Admission):
                    book.admitted.setdefault(admission.token_id, set()).add(admission.node_id)
        return book


def _is_signed(anchor: TrustAnchor, value: JoinToken | TokenRevocation) -> bool:
    """Return whether the authority signed a record."""
    if isinstance(value, JoinToken):
        return anchor.verify_token(value)
    return anchor.verify_revocation(value)
