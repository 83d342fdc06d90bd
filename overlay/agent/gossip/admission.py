"""Who may come in: the cluster's tokens and the authority's holders, as the records have them.

Owns: what a token's state is, counting its uses, handing out certificates where this host holds
the authority. Implements `wire.admission.Desk`. Must not know: HTTP, sockets.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from overlay import limits
from overlay.agent.gossip.service import Member
from overlay.agent.process.event_log import Journal
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    Admission,
    Holder,
    Invitation,
    Key,
    Revocation,
    key_of,
)
from overlay.errors import ConflictError, NotFoundError, OverlayError
from overlay.model import Ip, NodeId, ip_text, node_id_of, node_text
from overlay.wire.admission import Refusal, Request, Welcome
from overlay.wire.identity.authority import Anchor, Authority
from overlay.wire.identity.token import SECRET_SIZE, Token

_KEPT_ENDED_S = 30 * 86_400  # so that its bearer hears why, and `token ls` shows it
_TOKEN = "token"  # noqa: S105 the kind of the stored default token


@dataclass(slots=True)
class Book:
    """What the records say about admission, checked against the trust anchor."""

    holders: set[NodeId] = field(default_factory=set)
    invitations: dict[bytes, Invitation] = field(default_factory=dict)
    revoked: set[bytes] = field(default_factory=set)
    admitted: dict[bytes, set[NodeId]] = field(default_factory=dict)


class Admissions:
    """The desk of one member."""

    def __init__(
        self, member: Member, journal: Journal, wall_clock: Callable[[], float] = time.time
    ) -> None:
        self._member = member
        self._journal = journal
        self._wall_clock = wall_clock
        self._book: Book | None = None
        self._proven: dict[Key, tuple[NodeId, object]] = {}

    def changed(self) -> None:
        """Note that the cluster's records changed."""
        self._book = None

    # --- the desk (wire.admission.Desk) -------------------------------------------------

    def invitation(self, token_id: bytes) -> Invitation | None:
        """Return the token's record, in force or not, if it is the authority's."""
        return self.book().invitations.get(token_id)

    def refusal(self, invitation: Invitation, applicant: NodeId | None) -> Refusal | None:
        """Return why this token does not let this node in, or None; no node: let anyone in."""
        book = self.book()
        if applicant is not None and self._member.node.is_forgotten(applicant):
            return Refusal.BARRED
        if invitation.token_id in book.revoked:
            return Refusal.REVOKED
        if invitation.expires_s and self._wall_clock() >= invitation.expires_s:
            return Refusal.EXPIRED
        admitted = book.admitted.get(invitation.token_id, set())
        if invitation.uses_max and len(admitted - {applicant}) >= invitation.uses_max:
            return Refusal.USED_UP
        return None

    def holders(self) -> list[tuple[Ip, int]]:
        """Return where the other holders that live are."""
        cards = (self._member.node.store.card(node_id) for node_id in self.live_holders())
        return [(card.address, card.gossip_port) for card in cards if card is not None]

    def authority(self) -> Authority | None:
        """Return the authority, if it is held here."""
        return self._member.authority

    def admit(self, invitation: Invitation, request: Request) -> Welcome | None:
        """Count the admission, durably, and return it; None if that is not possible now."""
        authority = self._member.authority
        if authority is None or not self._member.node.may_write(self._member.pump.now()):
            return None
        node_id = node_id_of(request.sign_key)
        if node_id not in self.book().admitted.get(invitation.token_id, set()):
            admission = Admission(invitation.token_id, node_id)
            try:
                self._member.publish(self._member.commit(CLUSTER_SCOPE, [admission]))
            except OverlayError as error:  # a disk that refuses: the applicant asks again
                self._journal.record("admit", str(error), level=logging.ERROR, peer=request.name)
                return None
            self.changed()
            self._journal.record(
                "admit",
                f"{request.name} ({node_text(node_id)}) at {ip_text(request.address)} was let in "
                f"by token {invitation.token_id.hex()[:8]} {invitation.label}".rstrip(),
                peer=request.name,
            )
        certificate = authority.certify(
            request.sign_key, request.seal_key, request.name, request.address, self._wall_clock()
        )
        keyring = self._member.keyring
        return Welcome(certificate, keyring.key(keyring.sealing))

    # --- who holds the authority --------------------------------------------------------

    def is_holder(self, node_id: NodeId) -> bool:
        """Say whether a node holds the authority."""
        if node_id == self._member.node_id:
            return self._member.authority is not None
        return node_id in self.book().holders

    def live_holders(self) -> list[NodeId]:
        """Return the other holders that are alive, in order of id."""
        state_of = self._member.node.membership.state_of
        return [
            node_id
            for node_id in sorted(self.book().holders)
            if state_of(node_id) in (MemberState.ALIVE, MemberState.SUSPECT)
        ]

    def require_authority(self) -> Authority:
        """Return the authority; raises ConflictError where it is not held."""
        if self._member.authority is not None:
            return self._member.authority
        store = self._member.node.store
        names = sorted(
            card.name for node_id in self.book().holders if (card := store.card(node_id))
        )
        where = f"Do it on {' or '.join(names)}" if names else "Do it on a host that holds it"
        raise ConflictError(
            "this host does not hold the cluster's authority",
            hint=f"{where}, or make this host a holder from there: sudo overlayd promote "
            f"{self._member.card.name}",
        )

    def require_another_holder(self) -> None:
        """Raise ConflictError if others stay behind and the authority would go with this node."""
        node = self._member.node
        staying = {
            member.node_id
            for member in node.membership.members()
            if member.state is not MemberState.LEFT
        }
        if self._member.authority is not None and staying and not staying & self.book().holders:
            raise ConflictError(
                "this host is the only one that holds the cluster's authority",
                why="once it has left, nobody can ever be admitted again",
                hint="Hand it on first: sudo overlayd promote NODE. To leave all the same: "
                "sudo overlayd leave --force",
            )

    def declare(self) -> None:
        """Write down, once, that this host holds the authority."""
        authority = self._member.authority
        if authority is not None:
            proof = authority.holder(self._member.node_id)
            segments = self._member.commit(CLUSTER_SCOPE, [proof])
            if segments:
                self._member.publish(segments)
                self.changed()

    # --- tokens -------------------------------------------------------------------------

    def create(self, *, label: str, expires_in_s: int | None, uses: int | None) -> Token:
        """Make a token; raises ConflictError where the authority is not held."""
        authority = self.require_authority()
        cluster = self._member.cluster
        now_s = int(self._wall_clock())
        token = Token(
            authority.anchor,
            os.urandom(limits.TOKEN_ID_SIZE),
            os.urandom(SECRET_SIZE),
            cluster.gossip_port,
            cluster.vxlan_port,
        )
        invitation = authority.invite(
            Invitation(
                token_id=token.token_id,
                door=token.door,
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
                f"there are {len(own)} tokens made here",
                hint="End some: overlayd token ls, overlayd token revoke ID",
            )
        self._member.publish(self._member.commit(CLUSTER_SCOPE, [invitation], ended))
        self.changed()
        return token

    def default_token(self) -> Token:
        """Return this holder's own token without end, made if there is none in force."""
        authority = self.require_authority()
        state = self._member.state
        cluster = self._member.cluster
        stored = state.get(_TOKEN, "")
        if stored is not None:
            token = Token(
                authority.anchor,
                bytes.fromhex(stored["id"]),
                bytes.fromhex(stored["secret"]),
                cluster.gossip_port,
                cluster.vxlan_port,
            )
            invitation = self.invitation(token.token_id)
            if invitation is not None and self.refusal(invitation, None) is None:
                return token
        token = self.create(label="default", expires_in_s=None, uses=None)
        with state.transaction():
            state.put(_TOKEN, "", {"id": token.token_id.hex(), "secret": token.secret.hex()})
        return token

    def revoke(self, text: str) -> Invitation:
        """End a token, given by the head of its id; raises NotFoundError or ConflictError."""
        authority = self.require_authority()
        found = [
            invitation
            for token_id, invitation in self.book().invitations.items()
            if text and token_id.hex().startswith(text.lower())
        ]
        if not found:
            raise NotFoundError(
                f"there is no token {text!r}", hint="'overlayd token ls' lists them"
            )
        if len(found) > 1:
            raise ConflictError(f"{text!r} begins several tokens' ids", hint="Write more of it")
        revocation = authority.revoke(found[0].token_id)
        self._member.publish(self._member.commit(CLUSTER_SCOPE, [revocation]))
        self.changed()
        return found[0]

    def _own(self, kind: str) -> list[Key]:
        own = self._member.node_id
        values = self._member.node.store.values(CLUSTER_SCOPE, kind)
        return [key_of(value) for origin, value in values if origin == own]

    def _ended(self) -> list[Key]:
        """Return the keys of this host's own records about tokens that ended long ago."""
        book = self.book()
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

    def book(self) -> Book:
        """Return what the records say, without what a forgotten node wrote."""
        if self._book is None:
            self._book = self._read()
        return self._book

    def _read(self) -> Book:
        node, anchor = self._member.node, self._member.anchor
        book = Book()

        def is_own_word(origin: NodeId) -> bool:
            return origin == self._member.node_id and self._member.authority is not None

        for kind in ("holder", "invitation", "revocation", "admission"):
            for origin, value in node.store.values(CLUSTER_SCOPE, kind):
                if node.is_forgotten(origin):
                    continue
                match value:
                    case Holder() if self._is_proven(anchor, origin, value):
                        if origin != self._member.node_id:
                            book.holders.add(origin)
                    case Invitation() if self._is_proven(anchor, origin, value):
                        book.invitations[value.token_id] = value
                    case Revocation() if self._is_proven(anchor, origin, value):
                        book.revoked.add(value.token_id)
                    case Admission() if origin in book.holders or is_own_word(origin):
                        book.admitted.setdefault(value.token_id, set()).add(value.node_id)
                    case _:
                        pass
        return book

    def _is_proven(
        self, anchor: Anchor, origin: NodeId, value: Holder | Invitation | Revocation
    ) -> bool:
        """Check a signature of the authority, once."""
        kind, identity = key_of(value)
        key: Key = (kind, identity or origin)
        if self._proven.get(key) == (origin, value):
            return True
        match value:
            case Holder():
                is_true = anchor.holds(origin, value)
            case Invitation():
                is_true = anchor.invited(value)
            case Revocation():
                is_true = anchor.revoked(value)
        if is_true:
            self._proven[key] = (origin, value)
        return is_true
