"""All that runs while this node is member of a cluster, wired together.

Owns: construction order, what is begun at the start and ended at the close, the background tasks.
Must not know: the API, how a cluster is joined.
"""

from __future__ import annotations

import logging
import os

from overlay.agent.dataplane.fast_path import FastPathSupport
from overlay.agent.dataplane.mtu import MtuController
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.dataplane.underlay import Underlay
from overlay.agent.dataplane.underlay_filter import UnderlayFilter
from overlay.agent.dns.clients import DnsClients
from overlay.agent.dns.resolver import Resolver
from overlay.agent.dns.service import DnsService
from overlay.agent.endpoints.attach import EndpointAttacher
from overlay.agent.endpoints.context import EndpointContext
from overlay.agent.endpoints.default_route import DefaultRoutes
from overlay.agent.endpoints.detach import EndpointDetacher
from overlay.agent.endpoints.removed_networks import RemovedNetworks
from overlay.agent.endpoints.repair import Repair
from overlay.agent.endpoints.restart import Restart
from overlay.agent.endpoints.rollback import Rollback
from overlay.agent.endpoints.service import AttachService
from overlay.agent.endpoints.update import UpdateService
from overlay.agent.event_router import EventRouter
from overlay.agent.exposure.service import ExposureService
from overlay.agent.gossip.admission import AdmissionService
from overlay.agent.gossip.authority import AuthorityHolder
from overlay.agent.gossip.context import NodeContext
from overlay.agent.gossip.forget import ForgetService
from overlay.agent.gossip.identity_conflicts import IdentityConflicts
from overlay.agent.gossip.key_rotation import KeyRotation
from overlay.agent.gossip.service import GossipService
from overlay.agent.ipam.allocator import AddressAllocator
from overlay.agent.ipam.reclaim import Reclaim
from overlay.agent.networks.drivers.registry import NetworkDrivers
from overlay.agent.networks.participation import ParticipationService
from overlay.agent.process.config import Config
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.process.tasks import BackgroundTasks
from overlay.agent.records.conflict_report import ConflictReport
from overlay.agent.records.directory import Directory
from overlay.agent.startup import Startup
from overlay.agent.state import documents
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.database import StateDatabase
from overlay.agent.state.documents import StoredCluster
from overlay.core.dataplane.state import HOST_PORT_PREFIX
from overlay.core.events import Event
from overlay.core.protocol.messages import MemberState
from overlay.model import Ip, NodeId, Vni
from overlay.wire.admission import JoinResponder


class Components:
    """One membership, from start to close."""

    def __init__(
        self,
        config: Config,
        state: StateDatabase,
        kernel: KernelThread,
        event_log: EventLog,
        cluster: StoredCluster,
        underlay: tuple[Ip, str, int],
    ) -> None:
        address, interface, underlay_mtu = underlay
        self.config = config
        self.event_log = event_log
        self.attachments = Attachments(documents.ATTACHMENTS.load(state))
        self.gossip = GossipService(state, cluster, address, underlay_mtu, self._handle_event)
        self.directory = Directory(self.gossip.node, self.gossip.node_id)
        self._context = NodeContext(self.gossip, self.directory, kernel, event_log)
        self.admission = AdmissionService(self.gossip, event_log)
        self.authority_holder = AuthorityHolder(
            self.gossip, self.directory, self.admission, event_log
        )
        self.key_rotation = self._make_key_rotation(config.key_rotation_interval_s)
        self.forget_service = ForgetService(self.gossip, self.directory, self.admission, event_log)
        self.identity_conflicts = IdentityConflicts(self.gossip, self.directory, event_log)
        self.allocator = AddressAllocator(self.gossip, self.directory, event_log)
        self.underlay_filter = UnderlayFilter(
            self.gossip, self.directory, kernel, event_log, config.reconcile_interval_s
        )
        self.reconciler = self._make_reconciler(kernel)
        self.drivers = NetworkDrivers(self._context, self.reconciler, self.attachments)
        self.participation = ParticipationService(
            self.gossip, self.directory, self.reconciler, self.attachments
        )
        endpoints = self._make_endpoint_context()
        self.detacher = EndpointDetacher(endpoints)
        self._rollback = Rollback(self.detacher, self.directory, self.attachments, event_log)
        self.attacher = EndpointAttacher(
            endpoints, self._rollback, UpdateService(endpoints, self.reconciler)
        )
        self.exposure = self._make_exposure(kernel)
        self.underlay, self.mtu_controller = self._make_underlay(kernel, interface)
        self.directory.view.is_expired = self._is_expired
        self.directory.view.ownership = self.allocator.space.ownership
        self.conflict_report = ConflictReport(self.directory, self.allocator.space, event_log)
        dns_clients = DnsClients(state, self.directory, self.attachments)
        self.resolver = Resolver(self.directory, dns_clients, config.dns_domain)
        self.dns = self._make_dns_service(kernel, dns_clients)
        self.restart = Restart(state, self.directory, self.attacher, self.attachments, event_log)
        self.attach_service = AttachService(self.attacher, self.detacher, self.restart)
        self._repair = self._make_repair()
        self._removed_networks = RemovedNetworks(self.gossip, self.directory, self.detacher)
        self._reclaim = Reclaim(self.gossip, self.directory, self.allocator, event_log)
        self._startup = self._make_startup()
        self._event_router = self._make_event_router()
        self._tasks = BackgroundTasks(event_log)

    def _make_reconciler(self, kernel: KernelThread) -> Reconciler:
        return Reconciler(
            self.gossip,
            self.directory,
            kernel,
            self.event_log,
            self.attachments,
            self.config.reconcile_interval_s,
            FastPathSupport(self.config.fast_path),
            self.underlay_filter,
        )

    def _make_endpoint_context(self) -> EndpointContext:
        return EndpointContext(
            self._context,
            self.attachments,
            self.allocator,
            self.drivers,
            DefaultRoutes(self._context, self.attachments),
            self.participation,
        )

    def _make_dns_service(self, kernel: KernelThread, dns_clients: DnsClients) -> DnsService:
        servers = DnsService(self.resolver, dns_clients, kernel, self.event_log)
        self.reconciler.opened, self.reconciler.closed = servers.open, servers.close
        return servers

    def _make_underlay(
        self, kernel: KernelThread, interface: str
    ) -> tuple[Underlay, MtuController]:
        parts = (self.gossip, self.directory, self.reconciler, kernel, self.event_log)
        watch = Underlay(*parts, interface)
        mtu_controller = MtuController(*parts, self.attachments, interface)
        mtu_controller.mtu_changed = self.exposure.controller.trigger
        watch.mtu_found = mtu_controller.reconcile
        return watch, mtu_controller

    def _make_exposure(self, kernel: KernelThread) -> ExposureService:
        exposure = ExposureService(
            self.config,
            self.gossip,
            self.directory,
            self.allocator,
            self.reconciler,
            self.participation,
            kernel,
            self.event_log,
            self.attachments,
        )
        self.attacher.endpoint_attached = exposure.endpoint_attached
        self.attacher.context.default_routes.default_route_moved = (
            exposure.published_ports.endpoints_changed
        )
        return exposure

    def _make_repair(self) -> Repair:
        repair = Repair(self.attacher, self.detacher, self.restart)

        def report(vni: Vni, ports: list[str]) -> None:
            repair.report([port for port in ports if not port.startswith(HOST_PORT_PREFIX)])
            if any(port.startswith(HOST_PORT_PREFIX) for port in ports):
                self.exposure.controller.trigger(vni)

        self.reconciler.ports_lost = report
        self.drivers.macvlan_ports.interfaces_lost = repair.report
        return repair

    def _make_key_rotation(self, interval_s: float) -> KeyRotation:
        return KeyRotation(self.gossip, self.directory, self.admission, self.event_log, interval_s)

    def _make_startup(self) -> Startup:
        return Startup(
            self.gossip,
            self.directory,
            self.reconciler,
            self.participation,
            self.detacher,
            self.exposure.controller.eligibility,
            self.attachments,
        )

    def _make_event_router(self) -> EventRouter:
        return EventRouter(
            gossip=self.gossip,
            directory=self.directory,
            allocator=self.allocator,
            admission=self.admission,
            conflict_report=self.conflict_report,
            authority_holder=self.authority_holder,
            reconciler=self.reconciler,
            identity_conflicts=self.identity_conflicts,
            reclaim=self._reclaim,
            key_rotation=self.key_rotation,
            resolver=self.resolver,
            exposure=self.exposure,
            removed_networks=self._removed_networks,
            underlay=self.underlay,
            event_log=self.event_log,
        )

    def _handle_event(self, event: Event) -> None:
        self._event_router.route(event)

    def _make_join_responder(self) -> JoinResponder:
        return JoinResponder(
            self.gossip.identity,
            self.gossip.anchor.cluster_id,
            lambda: self.gossip.card,
            self.admission,
            os.urandom,
        )

    async def start(self) -> None:
        """Adopt what this node's sandboxes hold, then keep them true."""
        self.gossip.transport.handle_admission = self._make_join_responder().open
        self.gossip.start()
        if self.gossip.unreadable_count:
            self.event_log.record(
                "state",
                f"{self.gossip.unreadable_count} records of others on disk could not be read: "
                "they give them again",
                level=logging.WARNING,
            )
        await self._startup.adopt()
        await self.drivers.start()
        await self.attacher.context.default_routes.reconcile_all()
        await self.exposure.start()
        await self._startup.destroy_leftovers()
        begin = self._tasks.start
        begin(self.underlay_filter.run, "guard")
        begin(self.reconciler.run, "reconcile")
        begin(self.reconciler.watch, "watch")
        begin(self.drivers.macvlan_ports.run, "parented")
        begin(self.authority_holder.run, "custody")
        begin(self.key_rotation.run, "keys")
        begin(self._startup.withdraw_stale, "tidy up")
        begin(self._removed_networks.run, "removals")
        begin(self._reclaim.run, "inheriting")
        begin(self._rollback.run, "take back")
        begin(self.underlay.run, "underlay")
        begin(self.conflict_report.run, "clashes")
        for work, name in self.exposure.tasks():
            begin(work, name)
        for follower in self.restart.followers:
            begin(follower.run, f"{follower.kind} events")

    async def close(self) -> None:
        """Stop; the kernel goes on forwarding."""
        await self._tasks.close()
        await self._repair.close()
        self.dns.close_all()
        self.gossip.close()
        await self.reconciler.close()
        self.underlay_filter.close()
        self.exposure.close()

    def _is_expired(self, node_id: NodeId) -> bool:
        """Say whether a node has been dead for longer than the configured grace."""
        found = self.gossip.node.membership.member(node_id)
        if found is None or found.state is not MemberState.DEAD:
            return False
        return self.gossip.transport.now() - found.since > self.config.dead_grace_s
