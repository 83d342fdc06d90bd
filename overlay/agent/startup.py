"""Start-up: adopt what the previous agent process left, and withdraw what is no longer in use.

The state file may be old. So nothing is removed or withdrawn before peers have sent what they hold
of this node's records, and before containers that are connected have their attachments again.

Owns: which sandboxes are opened at a start, what is removed and withdrawn once this node may write,
and the report of a recovery. Does not: adopt a sandbox (`dataplane.reconciler`), a container
(`endpoints.older_state`) or the host's endpoints (`exposure.controller`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator

from overlay import limits
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.endpoints.older_state.adoption import Adoption
from overlay.agent.endpoints.older_state.newer_records import NewerRecords
from overlay.agent.gossip.service import GossipService
from overlay.agent.networks.participation import ParticipationService
from overlay.agent.process.controller import Controller, Fault
from overlay.agent.records.directory import Directory
from overlay.agent.router.sandbox_needs import SandboxNeeds
from overlay.agent.state.membership_documents import LostState
from overlay.core.dataplane.network_drivers import has_sandbox
from overlay.model import Vni


class Startup(Controller):
    """Reconciles this node's sandboxes, attachments and records, once after a start."""

    name = "startup"
    problem = "leftovers of the last run are not cleaned up yet"

    def __init__(
        self,
        gossip: GossipService,
        directory: Directory,
        reconciler: Reconciler,
        participation: ParticipationService,
        needs: SandboxNeeds,
        adoption: Adoption,
        newer_records: NewerRecords,
    ) -> None:
        super().__init__(adoption.event_log)
        self.recovery = ""
        """A summary of what this start recovered of an old state; empty if it was not old."""
        self._gossip = gossip
        self._directory = directory
        self._reconciler = reconciler
        self._participation = participation
        self._needs = needs
        self._adoption = adoption
        self._newer_records = newer_records
        self._attachments = adoption.attachments

    def report_unreadable(self) -> None:
        """Record that some records of other nodes could not be read."""
        if self._gossip.unreadable_count:
            self._event_log.record(
                "state",
                f"skipped {self._gossip.unreadable_count} unreadable records of other nodes on "
                "disk; peers will send them again",
                level=logging.WARNING,
            )

    async def adopt(self) -> None:
        """Open the sandboxes of all attachments and of what needs one without any, if known."""
        attached = {Vni(a.vni) for a in self._attachments.values()}
        for vni in sorted(attached.union(self._needs.without_containers())):
            network = self._directory.network_by_vni(vni)
            if network is None or not has_sandbox(network):
                continue
            if self._reconciler.runtime(vni) is None:
                unfinished = [
                    a.port for a in self._attachments.values() if a.vni == vni and not a.plugged
                ]
                await self._reconciler.open(network, unfinished)

    async def reconcile(self) -> None:
        """Bring this host and its records in line, once this node may write.

        Adopts containers that are connected without an attachment, and remembers those that were
        attached anew and ended; removes sandboxes that nothing uses; withdraws endpoints without an
        attachment, and participation in networks without an endpoint, which a crash or an older
        copy of the state left behind.
        """
        await self._gossip.until_may_write()
        lost = self._gossip.lost_state
        if lost is not None:  # own records may be at a member that is not among the first to answer
            await self._gossip.wait_caught_up(limits.JOIN_SYNC_TIMEOUT_S)
        adopted = await self._adoption.adopt(unrecorded=lost is not None)
        await self._newer_records.remember()
        self._attachments.compared.set()
        await self.adopt()  # a network's record that the disk lost has come back from peers
        self._reconciler.note_adopted()
        self._reconciler.mark_stale()
        await self._reconciler.destroy_leftovers(self._needs.without_containers())
        withdrawn = 0
        for network in self._directory.networks():
            segments = self._newer_records.withdraw_unattached(network)
            withdrawn += sum(len(segment.entries) for segment in segments)
            self._gossip.publish(segments)
        for vni in self._directory.networks_forwarded_by(self._gossip.node_id):
            self._gossip.publish(await self._participation.end_unused(vni))
        if lost is not None:
            self._finish_recovery(lost, adopted, withdrawn)
        await self._newer_records.attach_remembered()

    def _finish_recovery(self, lost: LostState, adopted: list[str], withdrawn: int) -> None:
        self._gossip.state_caught_up()
        self.recovery = (
            f"{lost.why}. Members have sent what they had of this node's newer records; "
            f"{len(adopted)} containers attached again, {withdrawn} endpoints withdrawn"
        )
        if lost.copied_s < lost.found_s:
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(lost.copied_s))
            self.recovery += f". Ports published after {since} must be published again"
        self._event_log.record("state", self.recovery, level=logging.WARNING)

    def faults(self) -> Iterator[Fault]:
        """Yield that this node waits for its own newer records."""
        yield from super().faults()
        lost = self._gossip.lost_state
        if lost is not None:
            yield Fault(
                f"{lost.why}. Until members have sent this node's own newer records, nothing is "
                "attached, withdrawn or removed",
                "Start the other hosts. For each that is gone for good: "
                "overlayd forget --powered-off NAME",
                "error",
            )
