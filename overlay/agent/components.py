"""The composition root: constructs all components of one cluster membership.

Owns: construction order, what is started and closed, the background tasks. Does not: know the API,
or how a cluster is joined. Components find each other here and nowhere else: each constructor
connects to the signals that it reacts to.
"""

from __future__ import annotations

from overlay.agent.apply.kinds import HostServices, Registries, apply_service
from overlay.agent.containers.container_ends import ContainerEnds
from overlay.agent.declared.service import DeclaredService
from overlay.agent.diagnosis import Diagnosis
from overlay.agent.endpoints.endpoint_management import EndpointManagement
from overlay.agent.endpoints.older_state.adoption import Adoption
from overlay.agent.endpoints.older_state.newer_records import NewerRecords
from overlay.agent.endpoints.runtime_endpoints import RuntimeEndpoints
from overlay.agent.endpoints.runtimes.plugin_endpoints import PluginEndpoints
from overlay.agent.endpoints.service import AttachService
from overlay.agent.event_router import EventRouter
from overlay.agent.exposure.context import ExposureContext
from overlay.agent.exposure.declared_exposures import DeclaredExposures
from overlay.agent.exposure.preferences import ExposurePreferences
from overlay.agent.exposure.service import ExposureService
from overlay.agent.former_identity import FormerIdentity
from overlay.agent.frame_forwarding import FrameForwarding
from overlay.agent.gossip.administration import Administration
from overlay.agent.gossip.context import NodeContext
from overlay.agent.gossip.service import GossipService
from overlay.agent.ipam.address_management import AddressManagement
from overlay.agent.multicast.controller import MulticastController
from overlay.agent.name_resolution import NameResolution
from overlay.agent.netcheck.checksum_errors import ChecksumErrors
from overlay.agent.netcheck.service import NetcheckService
from overlay.agent.networks.participation import ParticipationService
from overlay.agent.networks.service import NetworkService
from overlay.agent.plug.controller import PlugController
from overlay.agent.plug.intents import PluggedInterfaces
from overlay.agent.plug.service import PlugService
from overlay.agent.policy.policies import Policies
from overlay.agent.process.config import Config
from overlay.agent.process.controller import Controller
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.process.tasks import BackgroundTasks
from overlay.agent.record_readers import RecordReaders
from overlay.agent.records.conflict_report import ConflictReport
from overlay.agent.router.routers import Routers
from overlay.agent.router.sandbox_needs import SandboxNeeds
from overlay.agent.services.data_plane import ServiceDataPlane
from overlay.agent.services.host_client import HostClient
from overlay.agent.services.registry import ServiceRegistry
from overlay.agent.startup import Startup
from overlay.agent.state import documents
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.database import StateDatabase
from overlay.agent.state.identity_trail import IdentityTrail
from overlay.agent.state.membership_documents import StoredCluster
from overlay.agent.state.previous_copy import PreviousCopy
from overlay.agent.trace.context import WayContext
from overlay.model import Ip


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
        self.gossip = GossipService(state, cluster, address, underlay_mtu)
        readers = RecordReaders(self.gossip, self.attachments, config.dead_grace_s)
        self.directory, self._space = readers.directory, readers.space
        self.service_catalog = readers.catalog
        context = self._context = NodeContext(self.gossip, self.directory, kernel, event_log)
        self.declared = DeclaredService(context, readers.declared)
        self.administration = Administration(self.gossip, self.directory, event_log, config)
        self.ipam = AddressManagement(self.gossip, self.directory, self._space, event_log)
        self.conflict_report = ConflictReport(self.directory, self._space, event_log)
        self.forwarding = FrameForwarding(
            context, self.attachments, self.declared, config, interface
        )
        self._construct_participation(readers)
        self._construct_objects(readers)
        self._construct_endpoints()
        self.names = NameResolution(
            context,
            self.attachments,
            self.declared,
            self.forwarding.reconciler,
            self.endpoints.attacher,
            self.runtime_endpoints,
            domain=config.dns_domain,
        )
        self._construct_diagnosis()
        self._adoption = Adoption(self.endpoints.context)
        self.startup = Startup(
            self.gossip,
            self.directory,
            self.forwarding.reconciler,
            self.participation,
            self._sandbox_needs,
            self._adoption,
            NewerRecords(self.endpoints.context, self.endpoints.restart),
        )
        moved, trail = (self.endpoints.restart, self.participation), IdentityTrail(config.run_dir)
        self.former_identity = FormerIdentity(
            context, self.administration.forgetting, *moved, self._space, trail
        )
        self.previous_copy = PreviousCopy(state, event_log)
        registries = Registries(self.networks, self.services, self.policies, self.routers)
        of_hosts = HostServices(self.names.custom_records, self.exposure, self.plugs)
        self.apply = apply_service(context, self.declared, registries, of_hosts)
        self._event_router = self._make_event_router()
        self._tasks = BackgroundTasks(event_log)

    def _construct_participation(self, readers: RecordReaders) -> None:
        """Construct participation in networks, and what has this host on them: its plugs, ports."""
        context, forwarding, state = self._context, self.forwarding, self.gossip.state
        self._preferences = ExposurePreferences(
            state, self.service_catalog, DeclaredExposures(self.directory)
        )
        plugged = PluggedInterfaces(state, forwarding.fabric)
        self._sandbox_needs = SandboxNeeds(
            self.directory, self.attachments, (self._preferences, plugged)
        )
        self.participation = ParticipationService(
            context,
            forwarding.reconciler,
            self.attachments,
            self._sandbox_needs,
            forwarding.encryption,
        )
        records = (self.declared, readers.plugs, plugged)
        plugs = PlugController(context, *records, forwarding.reconciler, self._space)
        host = (forwarding.drivers.macvlan_ports, forwarding.underlay, self.config.cluster_plugs)
        self.plugs = PlugService(context, plugs, self.participation, *host)

    def _construct_objects(self, readers: RecordReaders) -> None:
        """Construct what people create in the cluster: networks, services, policies, routers."""
        context, reconciler = self._context, self.forwarding.reconciler
        self.policies = Policies(context, self.declared, readers.policies, reconciler)
        self.routers = Routers(context, self.declared, self._sandbox_needs, self.participation)
        self.multicast = MulticastController(context, self.declared, reconciler)
        self.networks = NetworkService(
            context,
            self.participation,
            self.ipam.reserves,
            self.forwarding.encryption,
            self.declared,
            readers.plugs,
        )
        self.services = ServiceRegistry(
            context,
            self.declared,
            self.service_catalog,
            self.ipam.allocator,
            self.participation,
        )

    def _construct_endpoints(self) -> None:
        """Construct the endpoints of containers, those of this host, and their services."""
        node, attachments = self._context, self.attachments
        allocator, participation = self.ipam.allocator, self.participation
        endpoints = self.endpoints = EndpointManagement(
            node, attachments, allocator, participation, self.forwarding
        )
        attacher, detacher, editor = endpoints.attacher, endpoints.detacher, endpoints.editor
        self.container_ends = ContainerEnds(attacher)
        exposure = ExposureContext(
            node,
            attachments,
            allocator,
            participation,
            self.forwarding,
            self._preferences,
            endpoints.context.default_routes.default_route_moved,
            attacher.endpoint_attached,
            editor.endpoint_renamed,
        )
        self.exposure = ExposureService(exposure, self.declared.objects, self.config)
        published_ports = self.exposure.published_ports
        self.service_data_plane = ServiceDataPlane(
            node,
            attachments,
            self.service_catalog,
            HostClient(self.exposure.host_endpoints, self.exposure.rules),
            endpoints.context.container_changed,
            self.exposure.controller.exposure_changed,
            self.config.services_at_connect,
        )
        self.exposure.rules.place_known.connect(self.service_data_plane.clients.trigger)
        self.runtime_endpoints = RuntimeEndpoints(attacher, detacher, editor)
        self.attach_service = AttachService(
            attacher, detacher, editor, endpoints.restart, published_ports, self.forwarding.paths
        )
        self.plugin_endpoints = PluginEndpoints(
            self.attach_service, attacher, detacher, published_ports
        )

    def _construct_diagnosis(self) -> None:
        """Construct what explains, captures, and asks members about now."""
        context, attachments, forwarding = self._context, self.attachments, self.forwarding
        self.netcheck = NetcheckService(
            context,
            forwarding.paths,
            forwarding.underlay_filter,
            ChecksumErrors(context, attachments),
        )
        ways = WayContext(
            context, attachments, forwarding.reconciler, forwarding.paths, self.policies.decider
        )
        self.diagnosis = Diagnosis(ways, captures_for_peers=self.config.capture_from_peers)

    def _make_event_router(self) -> EventRouter:
        return EventRouter(
            context=self._context,
            administration=self.administration,
            ipam=self.ipam,
            conflict_report=self.conflict_report,
            forwarding=self.forwarding,
            declared=self.declared,
            names=self.names,
            exposure=self.exposure,
            service_data_plane=self.service_data_plane,
            networks=self.networks,
            adoption=self._adoption,
            removed_networks=self.endpoints.removed_networks,
            routers=self.routers.controller,
            plugs=self.plugs,
            diagnosis=self.diagnosis,
            netcheck=self.netcheck,
            multicast=self.multicast,
        )

    @property
    def controllers(self) -> tuple[Controller, ...]:
        """Return all controllers of this membership, in order of their start."""
        forwarding = self.forwarding
        return (
            forwarding.underlay_filter,
            forwarding.encryption,
            forwarding.reconciler,
            forwarding.encryption_switch,
            forwarding.evpn,
            *self.plugs.controllers,
            self.startup,
            self.routers.controller,
            self.former_identity,
            self.previous_copy,
            forwarding.drivers.macvlan_ports,
            forwarding.drivers.port_removals,
            self.container_ends,
            self.administration.certificate,
            self.administration.sharing,
            self.administration.key_rotation,
            self.endpoints.removed_networks,
            self.ipam.reclaim,
            self.ipam.reserves,
            self.declared,
            self.endpoints.rollback,
            self.participation,
            forwarding.underlay,
            *forwarding.native_path.controllers,
            forwarding.zero_checksums,
            forwarding.seed_contact,
            forwarding.paths,
            *self.netcheck.controllers,
            self.conflict_report,
            self.administration.card_report,
            self.names.removed_records,
            *self.exposure.controllers,
            *self.service_data_plane.controllers,
            self.policies.drop_reports,
            forwarding.controls.storm_reports,
            self.multicast,
        )

    async def start(self) -> None:
        """Adopt this node's sandboxes, then start all controllers."""
        self.gossip.start()
        self.startup.report_unreadable()
        await self.forwarding.evpn.load()
        await self.forwarding.native_path.firewall.attempt()
        await self.startup.adopt()
        await self.forwarding.drivers.start()
        await self.endpoints.start()
        await self.names.start()
        await self.exposure.start()
        for controller in self.controllers:
            self._tasks.start(controller.run, controller.name)
        self._tasks.start(self.forwarding.reconciler.watch, "sandbox poll")
        self._tasks.start(self.forwarding.encryption.look, "wireguard-go poll")
        for run, name in self.diagnosis.background:
            self._tasks.start(run, name)
        for follower in self.endpoints.restart.followers:
            self._tasks.start(follower.run, f"{follower.kind} events")

    async def close(self) -> None:
        """Stop everything; the kernel keeps forwarding."""
        await self._tasks.close()
        await self.endpoints.close()
        self.diagnosis.close()
        await self.names.close()
        self.multicast.close()
        self.gossip.close()
        self.plugs.controller.close()
        await self.forwarding.close()
        self.exposure.close()
