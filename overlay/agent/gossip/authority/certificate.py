"""Keep this node's certificate in force, and renew those of others.

Owns: when a certificate is renewed and by whom, and what a member does with one that it receives.
Does not: know HTTP or tokens, or who becomes a holder of the authority (`handover`).
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Iterator

from overlay import limits
from overlay.agent.gossip.authority.holders import AuthorityHolders
from overlay.agent.gossip.service import GossipService
from overlay.agent.process.controller import Controller, Fault
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.core.events import AuthorityMessage
from overlay.core.protocol.messages import CertificateRenewal, CertificateRequest
from overlay.model import Certificate, NodeId

_AGAIN_S = 60.0  # while a renewal is due and no holder has answered
_DAY_S = 86_400


class CertificateKeeper(Controller):
    """This member's certificate, and its answers to those who need a new one."""

    name = "certificate"
    problem = "this node's certificate is not renewed"

    def __init__(
        self,
        gossip: GossipService,
        directory: Directory,
        holders: AuthorityHolders,
        event_log: EventLog,
    ) -> None:
        super().__init__(event_log)
        self._gossip = gossip
        self._directory = directory
        self._holders = holders
        self._renewing = False

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncIterator[None]:
        """Wait until this node may write."""
        await self._gossip.until_may_write()
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
                "No holder of the authority has answered ('overlayd authority ls' shows them); "
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
        for node_id in self._holders.live()[: limits.HOLDERS_REPORTED_MAX]:
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
        """Handle a request or an answer of a member; a certificate is verified."""
        # Later, as the node is in the middle of a call.
        soon = asyncio.get_running_loop().call_soon
        match event.message:
            case CertificateRequest():
                self._send_certificate(event.sender)
            case CertificateRenewal(certificate=certificate):
                soon(self._accept_certificate, certificate)
            case _:
                pass

    def _accept_certificate(self, certificate: Certificate) -> None:
        """Use a certificate that was requested.

        Others are ignored: anyone may replay an old one, and each change of the card is a write
        and a message to all members.
        """
        if self._is_due() and certificate.not_after_s > self._end_s():
            with self.outcome():  # if the disk rejects it, it is requested again
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
