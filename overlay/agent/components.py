"""All that runs while this node is member of a cluster, wired together.

Owns: construction order, what is begun at the start and ended at the close, the background tasks.
Must not know: the API, how a cluster is joined.
"""

from __future__ import annotations

import logging
import os

from overlay.agent.dataplane.fast_path import FastMode
from overlay.agent.dataplane.mtu import Resizing
from overlay.agent.dataplane.reconciler import Datapath
from overlay.agent.dataplane.underlay import UnderlayWatch
from overlay.agent.dataplane.underlay_filter import Guard
from overlay.agent.dns.clients import Askers
from overlay.agent.dns.resolver import Names
from overlay.agent.dns.service import DnsServers
from overlay.agent.endpoints.attach import Attaching
from overlay.agent.endpoints.detach import Detaching
from overlay.agent.endpoints.interfaces import Plugging
from overlay.agent.endpoints.removed_networks import Removals
from overlay.agent.endpoints.repair import Lost
from overlay.agent.endpoints.restart import Returning
from overlay.agent.endpoints.rollback import TakingBack
from overlay.agent.endpoints.service import AttachService
from overlay.agent.event_router import Dispatch
from overlay.agent.exposure.service import Outside
from overlay.agent.gossip.admission import Admissions
from overlay.agent.gossip.authority import Custody
from overlay.agent.gossip.forget import Forgetting
from overlay.agent.gossip.identity_conflicts import Doubts
from overlay.agent.gossip.key_rotation import Keys
from overlay.agent.gossip.service import Member
from overlay.agent.ipam.allocator import Addresses
from overlay.agent.ipam.reclaim import Inheriting
from overlay.agent.networks.participation import TakingPart
from overlay.agent.process.config import Config
from overlay.agent.process.event_log import Journal
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.process.tasks import Background
from overlay.agent.records.conflict_report import Clashes
from overlay.agent.records.directory import Directory
from overlay.agent.startup import Adopting
from overlay.agent.state import documents
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.database import StateFile
from overlay.agent.state.documents import ClusterFile
from overlay.core.dataplane.state import HOST_PORT_PREFIX
from overlay.core.events import Event
from overlay.core.protocol.messages import MemberState
from overlay.model import Ip, NodeId, Vni
from overlay.wire.admission import Doorkeeper


class Running:
    """One membership, from start to close."""

    def __init__(
        self,
        config: Config,
        state: StateFile,
        kernel: KernelThread,
        journal: Journal,
        cluster: ClusterFile,
        underlay: tuple[Ip, str, int],
    ) -> None:
        address, interface, underlay_mtu = underlay
        self.config = config
        self.journal = journal
        self.attachments = Attachments(documents.load_attachments(state))
        self.member = Member(state, cluster, address, underlay_mtu, self._take_event)
        self.directory = Directory(self.member.node, self.member.node_id)
        self.admissions = Admissions(self.member, journal)
        self.custody = Custody(self.member, self.directory, self.admissions, journal)
        self.keys = self._keys(config.key_rotation_interval_s)
        self.forgetting = Forgetting(self.member, self.directory, self.admissions, journal)
        self.doubts = Doubts(self.member, self.directory, journal)
        self.addresses = Addresses(self.member, self.directory, journal)
        self.guard = Guard(
            self.member, self.directory, kernel, journal, config.reconcile_interval_s
        )
        self.datapath = Datapath(
            self.member,
            self.directory,
            kernel,
            journal,
            self.attachments,
            config.reconcile_interval_s,
            FastMode(config.fast_path),
            self.guard,
        )
        self.plugging = Plugging(
            state, self.directory, self.datapath, kernel, journal, self.attachments
        )
        self.taking_part = TakingPart(self.member, self.directory, self.datapath, self.attachments)
        self.detaching = self._detach()
        self._taking_back = TakingBack(self.detaching, self.directory, self.attachments, journal)
        self.attaching = self._attach(kernel)
        self.outside = self._reach_outside(kernel)
        self.underlay, self.resizing = self._follow_underlay(kernel, interface)
        self.directory.view.is_expired = self._is_expired
        self.directory.view.ownership = self.addresses.space.ownership
        self.clashes = Clashes(self.directory, self.addresses.space, journal)
        askers = Askers(state, self.directory, self.attachments)
        self.names = Names(self.directory, config.dns_domain)
        self.names.networks_of = askers.networks
        self.dns = self._serve_names(kernel, askers)
        self.returning = Returning(state, self.directory, self.attaching, self.attachments, journal)
        self.attach_service = self._serve_attach(kernel)
        self._lost = self._follow_up_losses(kernel)
        self._removals = Removals(self.member, self.directory, self.detaching)
        self._inheriting = Inheriting(self.member, self.directory, self.addresses, journal)
        self._adopting = self._adopt()
        self._dispatch = self._hear()
        self._background = Background(journal)

    def _detach(self) -> Detaching:
        return Detaching(
            self.member,
            self.directory,
            self.addresses,
            self.plugging,
            self.taking_part,
            self.journal,
            self.attachments,
        )

    def _attach(self, kernel: KernelThread) -> Attaching:
        return Attaching(
            self.member,
            self.directory,
            self.addresses,
            self.datapath,
            self.plugging,
            self.taking_part,
            self._taking_back,
            kernel,
            self.journal,
            self.attachments,
        )

    def _serve_attach(self, kernel: KernelThread) -> AttachService:
        return AttachService(
            self.directory,
            self.attaching,
            self.detaching,
            self.returning,
            self.attachments,
            kernel,
        )

    def _serve_names(self, kernel: KernelThread, askers: Askers) -> DnsServers:
        servers = DnsServers(self.names, kernel, self.journal)
        servers.resolvers_of = askers.resolvers
        self.datapath.opened, self.datapath.closed = servers.open, servers.close
        return servers

    def _follow_underlay(
        self, kernel: KernelThread, interface: str
    ) -> tuple[UnderlayWatch, Resizing]:
        parts = (self.member, self.directory, self.datapath, kernel, self.journal)
        watch = UnderlayWatch(*parts, interface)
        resizing = Resizing(*parts, self.attachments, interface)
        resizing.resized = self.outside.exposure.wake
        watch.found = resizing.settle
        return watch, resizing

    def _reach_outside(self, kernel: KernelThread) -> Outside:
        outside = Outside(
            self.config,
            self.member,
            self.directory,
            self.addresses,
            self.datapath,
            self.taking_part,
            kernel,
            self.journal,
            self.attachments,
        )
        self.attaching.arrived = outside.arrived
        self.plugging.gateways.moved = outside.publishing.changed
        return outside

    def _follow_up_losses(self, kernel: KernelThread) -> Lost:
        lost = Lost(
            self.directory,
            self.attaching,
            self.detaching,
            self.returning,
            self.attachments,
            kernel,
            self.journal,
        )

        def report(vni: Vni, ports: list[str]) -> None:
            lost.report([port for port in ports if not port.startswith(HOST_PORT_PREFIX)])
            if any(port.startswith(HOST_PORT_PREFIX) for port in ports):
                self.outside.exposure.wake(vni)

        self.datapath.lost_ports = report
        self.plugging.parented.lost = lost.report
        return lost

    def _keys(self, interval_s: float) -> Keys:
        return Keys(self.member, self.directory, self.admissions, self.journal, interval_s)

    def _adopt(self) -> Adopting:
        return Adopting(
            self.member,
            self.directory,
            self.datapath,
            self.taking_part,
            self.detaching,
            self.outside.exposure.exposable,
            self.attachments,
        )

    def _hear(self) -> Dispatch:
        return Dispatch(
            member=self.member,
            directory=self.directory,
            addresses=self.addresses,
            admissions=self.admissions,
            clashes=self.clashes,
            custody=self.custody,
            datapath=self.datapath,
            doubts=self.doubts,
            inheriting=self._inheriting,
            keys=self.keys,
            names=self.names,
            outside=self.outside,
            removals=self._removals,
            underlay=self.underlay,
            journal=self.journal,
        )

    def _take_event(self, event: Event) -> None:
        self._dispatch.take(event)

    def _doorkeeper(self) -> Doorkeeper:
        return Doorkeeper(
            self.member.identity,
            self.member.anchor.cluster_id,
            lambda: self.member.card,
            self.admissions,
            os.urandom,
        )

    async def start(self) -> None:
        """Adopt what this node's sandboxes hold, then keep them true."""
        self.member.pump.door = self._doorkeeper().open
        self.member.start()
        if self.member.unreadable_count:
            self.journal.record(
                "state",
                f"{self.member.unreadable_count} records of others on disk could not be read: "
                "they give them again",
                level=logging.WARNING,
            )
        await self._adopting.adopt()
        await self.plugging.start()
        await self.outside.start()
        await self._adopting.destroy_leftovers()
        begin = self._background.start
        begin(self.guard.run, "guard")
        begin(self.datapath.run, "reconcile")
        begin(self.datapath.watch, "watch")
        begin(self.plugging.parented.run, "parented")
        begin(self.custody.run, "custody")
        begin(self.keys.run, "keys")
        begin(self._adopting.tidy_up, "tidy up")
        begin(self._removals.run, "removals")
        begin(self._inheriting.run, "inheriting")
        begin(self._taking_back.run, "take back")
        begin(self.underlay.run, "underlay")
        begin(self.clashes.run, "clashes")
        for work, name in self.outside.tasks():
            begin(work, name)
        for follower in self.returning.followers:
            begin(follower.run, f"{follower.kind} events")

    async def close(self) -> None:
        """Stop; the kernel goes on forwarding."""
        await self._background.close()
        await self._lost.close()
        self.dns.close_all()
        self.member.close()
        await self.datapath.close()
        self.guard.close()
        self.outside.close()

    def _is_expired(self, node_id: NodeId) -> bool:
        """Say whether a node has been dead for longer than the configured grace."""
        found = self.member.node.membership.member(node_id)
        if found is None or found.state is not MemberState.DEAD:
            return False
        return self.member.pump.now() - found.since > self.config.dead_grace_s
