"""Hold the authority, and keep this node's certificate in force.

Owns: when a certificate is renewed and by whom, `promote`, and what a member does with a
certificate or authority key that it receives.
Does not: know HTTP or tokens.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

from overlay import limits
from overlay.agent.gossip.admission import AdmissionService
from overlay.agent.gossip.service import GossipService
from overlay.agent.process.controller import Controller, Fault
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
_DAY_S = 86_400


class AuthorityHolder(Controller):
    """This member's part in holding the authority, and its own certificate."""

    name = "authority holder"
    problem = "this node's certificate is not renewed"

    def __init__(
        self,
        gossip: GossipService,
        directory: Directory,
        admission: AdmissionService,
        event_log: EventLog,
    ) -> None:
        super().__init__(event_log)
        self._gossip = gossip
        self._directory = directory
        self._admission = admission
        self._renewing = False

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncIterator[None]:
        """Wait until this node may write, then publish that it holds the authority, if so."""
        while not await self._gossip.wait_may_write(_AGAIN_S):
            pass
        self._admission.declare_holder()
        yield

    async def reconcile(self) -> None:
        """Renew this node's certificate if that is due."""
        self._renewing = self.renew_if_due()

    def next_interval_s(self) -> float:
        """Return the time to the next check: short while a renewal is due."""
        return _AGAIN_S if self._renewing else limits.CERTIFICATE_CHECK_INTERVAL_S

    def faults(self) -> Iterator[Fault]:
        """Yield the fault, and a certificate that ends soon."""
        yield from super().faults()
        rest_s = self._end_s() - time.time()
        if rest_s < limits.CERTIFICATE_RENEWED_S / 2:
            when = f"ends in {rest_s / _DAY_S:.0f} days" if rest_s > 0 else "has expired"
            yield Fault(
                f"this node's certificate {when}",
                "No holder of the authority has answered ('overlayd members' shows them); "
                "forwarding continues, but members that do not know this host will not admit it",
            )

    def renew_if_due(self) -> bool:
        """Renew the certificate, or request that, if it ends soon; return whether it still does."""
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
        """Handle a request or an answer of a member; certificates and keys are verified."""
        # Later, as the node is in the middle of a call.
        soon = asyncio.get_running_loop().call_soon
        match event.message:
            case CertificateRequest():
                self._send_certificate(event.sender)
            case CertificateRenewal(certificate=certificate):
                soon(self._accept_certificate, certificate)
            case AuthorityHandover(key=key):
                soon(self._accept_authority, event.sender, key)

    def _accept_certificate(self, certificate: Certificate) -> None:
        """Use a certificate that was requested.

        Others are ignored: anyone may replay an old one, and each change of the card is a write
        and a message to all members.
        """
        if self._is_due() and certificate.not_after_s > self._end_s():
            self._gossip.use_certificate(certificate)

    def _send_certificate(self, sender: NodeId) -> None:
        authority = self._gossip.authority
        card = self._directory.card(sender)
        if authority is None or card is None:
            return
        certificate = authority.sign_certificate(
            card.sign_key, card.seal_key, card.name, card.address, time.time()
        )
        self._gossip.node.send_to(sender, CertificateRenewal(certificate))
        self._gossip.transport.flush_soon()

    def _accept_authority(self, sender: NodeId, key: bytes) -> None:
        held = self._gossip.authority is not None
        if not self._gossip.hold_authority(key):
            return
        if not held:
            self._gossip.state.keep_backup()  # a damaged state must not cost the cluster its key
            name = self._directory.node_name(sender)
            self._event_log.record("promote", f"{name} made this host a holder of the authority")
        self._admission.declare_holder()

    async def promote(self, name: str) -> bool:
        """Send the authority to a member; return False if it already holds it.

        Raises ConflictError where it is not held here or the member is not alive, TimedOutError
        if the member does not confirm by a record of its own.
        """
        authority = self._admission.require_authority()
        node_id = self._directory.node(name)
        if self._admission.is_holder(node_id):
            return False
        if self._directory.node_state(node_id) is not MemberState.ALIVE:
            raise ConflictError(
                f"{name} is not alive", hint="'overlayd members' shows the members that are"
            )
        loop = asyncio.get_running_loop()
        deadline = loop.time() + limits.PROMOTE_TIMEOUT_S
        sent_at = 0.0
        while not self._admission.is_holder(node_id):
            if loop.time() >= deadline:
                raise TimedOutError(
                    f"{name} has not confirmed within {limits.PROMOTE_TIMEOUT_S:.0f} s",
                    hint="It may hold the authority nevertheless; run this again",
                )
            if loop.time() - sent_at >= _HANDOVER_INTERVAL_S:
                sent_at = loop.time()
                self._gossip.node.send_to(node_id, AuthorityHandover(authority.to_bytes()))
                self._gossip.transport.flush()
            await asyncio.sleep(_POLL_S)
        self._event_log.record("promote", f"{name} holds the authority", peer=name)
        return True
