"""The cluster's authority on this host: certificate renewal, and handing the authority on.

Owns: when a certificate is renewed and by which holder, `promote`, and what a member does with a
certificate or authority key that it receives. Does not: know HTTP or tokens.
"""

from __future__ import annotations

import asyncio
import time

from overlay import limits
from overlay.agent.gossip.admission import AdmissionService
from overlay.agent.gossip.service import GossipService
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.core.events import AuthorityMessage
from overlay.core.protocol.messages import (
    AuthorityHandover,
    CertificateRenewal,
    CertificateRequest,
    MemberState,
)
from overlay.errors import ConflictError, TimedOutError
from overlay.model import Certificate, NodeId

_AGAIN_S = 60.0  # while a renewal is due and no holder has answered
_HANDOVER_INTERVAL_S = 0.5
_POLL_S = 0.05


class AuthorityHolder:
    """One member's duties for the authority."""

    def __init__(
        self,
        gossip: GossipService,
        directory: Directory,
        admission: AdmissionService,
        event_log: EventLog,
    ) -> None:
        self._gossip = gossip
        self._directory = directory
        self._admission = admission
        self._event_log = event_log

    async def run(self) -> None:
        """Declare what is held here, and keep this node's certificate in force."""
        while not await self._gossip.wait_may_write(_AGAIN_S):
            pass
        self._admission.declare_holder()
        while True:
            pause_s = _AGAIN_S if self.renew_if_due() else limits.CERTIFICATE_CHECK_INTERVAL_S
            await asyncio.sleep(pause_s)

    def renew_if_due(self) -> bool:
        """Renew the certificate, or request a new one, if it ends soon; return whether it does."""
        if not self._is_due():
            return False
        authority = self._gossip.authority
        if authority is not None:
            card = self._gossip.card
            return not self._gossip.use_certificate(
                self._gossip.issue_own_certificate(authority, card.address)
            )
        for node_id in self._admission.live_holders()[: limits.HOLDERS_REPORTED_MAX]:
            self._gossip.node.send_to(node_id, CertificateRequest())
        self._gossip.transport.flush_soon()
        return True

    def _is_due(self) -> bool:
        return time.time() >= self._end_s() - limits.CERTIFICATE_RENEWED_S

    def _end_s(self) -> int:
        certificate = self._gossip.card.certificate
        assert certificate is not None, "a member is certified"
        return certificate.not_after_s

    def handle_message(self, event: AuthorityMessage) -> None:
        """Act on a member's request or delivery; what it delivers is verified before use."""
        # Deferred: the node is in the middle of an event.
        soon = asyncio.get_running_loop().call_soon
        match event.message:
            case CertificateRequest():
                self._certify(event.sender)
            case CertificateRenewal(certificate=certificate):
                soon(self._take_certificate, certificate)
            case AuthorityHandover(key=key):
                soon(self._take_authority, event.sender, key)

    def _take_certificate(self, certificate: Certificate) -> None:
        """Use a certificate only if a renewal is due.

        Any member can replay this node's old certificates, and each change of the card costs a
        write and a message to all members.
        """
        if self._is_due() and certificate.not_after_s > self._end_s():
            self._gossip.use_certificate(certificate)

    def _certify(self, sender: NodeId) -> None:
        authority = self._gossip.authority
        card = self._directory.card(sender)
        if authority is None or card is None:
            return
        certificate = authority.sign_certificate(
            card.sign_key, card.seal_key, card.name, card.address, time.time()
        )
        self._gossip.node.send_to(sender, CertificateRenewal(certificate))
        self._gossip.transport.flush_soon()

    def _take_authority(self, sender: NodeId, key: bytes) -> None:
        had = self._gossip.authority is not None
        if not self._gossip.hold_authority(key):
            return
        if not had:
            self._gossip.state.keep_backup()  # damage to the state must not lose the authority
            name = self._directory.node_name(sender)
            self._event_log.record("promote", f"{name} made this host a holder of the authority")
        self._admission.declare_holder()

    async def promote(self, name: str) -> bool:
        """Hand the authority to a member; return False if it already holds it.

        Raises ConflictError if this host does not hold the authority or the member is not alive,
        TimedOutError if the member does not publish its record in time.
        """
        authority = self._admission.require_authority()
        node_id = self._directory.node(name)
        if self._admission.is_holder(node_id):
            return False
        if self._directory.node_state(node_id) is not MemberState.ALIVE:
            raise ConflictError(
                f"{name} is not alive", hint="'overlayd members' shows the state of all members"
            )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limits.PROMOTE_TIMEOUT_S
        said_at = 0.0
        while not self._admission.is_holder(node_id):
            if loop.time() >= deadline:
                raise TimedOutError(
                    f"{name} has not confirmed within {limits.PROMOTE_TIMEOUT_S:.0f} s",
                    hint="It may hold the authority nevertheless; run this again",
                )
            if loop.time() - said_at >= _HANDOVER_INTERVAL_S:
                said_at = loop.time()
                self._gossip.node.send_to(node_id, AuthorityHandover(authority.to_bytes()))
                self._gossip.transport.flush()
            await asyncio.sleep(_POLL_S)
        self._event_log.record("promote", f"{name} holds the authority", peer=name)
        return True
