"""The composition root: constructs all components of one cluster membership.

Owns: construction order, what is started and closed, the background tasks. Does not: know the API,
or how a cluster is joined. Components find each other here and nowhere else: each constructor
connects to the signals that it reacts to.
"""

from __future__ import annotations

from overlay.agent.apply.kinds import HostServices, Registries, apply_service
from overlay.agent.containers.container_ends import ContainerEnds
from overlay.agent.controls.segment_controls import SegmentControls
from overlay.agent.dataplane.arrival_paths import ArrivalPaths
from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.agent.dataplane.fast_path import FastPathSupport
from overlay.agent.dataplane.mtu import MtuController
from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.dataplane.seed_contact import SeedContact
from overlay.agent.dataplane.traffic import TrafficMeter
from overlay.agent.dataplane.underlay import Underlay
from overlay.agent.dataplane.underlay_filter import UnderlayFilter
from overlay.agent.declared.service import DeclaredService
from overlay.agent.diagnosis import Diagnosis
from overlay.agent.encryption.controller import EncryptionController
from overlay.agent.encryption.switch import EncryptionSwitch
from overlay.agent.encryption.switch_service import SwitchService
from overlay.agent.endpoints.attach import EndpointAttacher
from overlay.agent.endpoints.context import EndpointContext
from overlay.agent.endpoints.detach import EndpointDetacher
from overlay.agent.endpoints.edit import EndpointEditor
from overlay.agent.endpoints.older_state.adoption import Adoption
from overlay.agent.endpoints.older_state.newer_records import NewerRecords
from overlay.agent.endpoints.removed_networks import RemovedNetworks
from overlay.agent.endpoints.rename import ContainerNames
from overlay.agent.endpoints.repair import Repair
from overlay.agent.endpoints.restart import Restart
from overlay.agent.endpoints.rollback import Rollback
from overlay.agent.endpoints.routes.default_route import DefaultRoutes
from overlay.agent.endpoints.routes.subnet_routes import SubnetRoutes
from overlay.agent.endpoints.runtime_endpoints import RuntimeEndpoints
from overlay.agent.endpoints.runtimes.plugin_endpoints import PluginEndpoints
from overlay.agent.endpoints.service import AttachService
from overlay.agent.endpoints.update import UpdateService
from overlay.agent.event_router import EventRouter
from overlay.agent.evpn.controller import EvpnController
from overlay.agent.exposure.controller import ExposureController
from overlay.agent.exposure.declared_exposures import DeclaredExposures
from overlay.agent.exposure.declared_host import DeclaredHost
from overlay.agent.exposure.eligibility import Eligibility
from overlay.agent.exposure.host_endpoints import HostEndpoints
from overlay.agent.exposure.ingress import Ingress
from overlay.agent.exposure.ip_forwarding import HostForwarding
from overlay.agent.exposure.preferences import ExposurePreferences
from overlay.agent.exposure.published_ports import PublishedPorts
from overlay.agent.exposure.rules import HostRules
from overlay.agent.exposure.service import ExposureService
from overlay.agent.former_identity import FormerIdentity
from overlay.agent.gossip.administration import Administration
from overlay.agent.gossip.context import NodeContext
from overlay.agent.gossip.service import GossipService
from overlay.agent.ipam.address_management import AddressManagement
from overlay.agent.multicast.controller import MulticastController
from overlay.agent.name_resolution import NameResolution
from overlay.agent.native.controller import NativePath
from overlay.agent.native.zero_checksum_report import ZeroChecksumReport
from overlay.agent.netcheck.checksum_errors import ChecksumErrors
from overlay.agent.netcheck.service import NetcheckService
from overlay.agent.networks.drivers.registry import NetworkDrivers
from overlay.agent.networks.participation import ParticipationService
from overlay.agent.networks.service import NetworkService
from overlay.agent.paths.controller import PathController
from overlay.agent.plug.controller import PlugController
from overlay.agent.plug.intents import PluggedInterfaces
from overlay.agent.plug.service import PlugService
from overlay.agent.policy.policies import Policies
from overlay.agent.process.config import Config
from overlay.agent.process.controller import Controller
from overlay.agent.process.event_log import EventLog
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.process.port_ranges import parse_port_ranges
from overlay.agent.process.tasks import BackgroundTasks
from overlay.agent.record_readers import RecordReaders
from overlay.agent.records.conflict_report import ConflictReport
from overlay.agent.router.routers import Routers
from overlay.agent.router.sandbox_needs import SandboxNeeds
from overlay.agent.services.data_plane import ServiceDataPlane
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
        readers = RecordReaders(self.gossip, config.dead_grace_s)
        self.directory, self._space = readers.directory, readers.space
        self.service_catalog, self._plug_catalog = readers.catalog, readers.plugs
        context = self._context = NodeContext(self.gossip, self.directory, kernel, event_log)
        self.declared = DeclaredService(context, readers.declared)
        self.administration = Administration(self.gossip, self.directory, event_log, config)
        self.ipam = AddressManagement(self.gossip, self.directory, self._space, event_log)
        self.conflict_report = ConflictReport(self.directory, self._space, event_log)
        self._construct_dataplane(interface)
        self._construct_objects(readers)
        self._construct_endpoints()
        self._construct_exposure()
        self._construct_dns()
        decider = self.policies.decider
        ways = WayContext(context, self.attachments, self.reconciler, self.paths, decider)
        self.diagnosis = Diagnosis(ways, captures_for_peers=config.capture_from_peers)
        self.startup = Startup(
            self.gossip,
            self.directory,
            self.reconciler,
            self.participation,
            self._sandbox_needs,
            Adoption(self.attacher.context),
            NewerRecords(self.attacher.context, self.restart),
        )
        moved, trail = (self.restart, self.participation), IdentityTrail(config.run_dir)
        self.former_identity = FormerIdentity(
            context, self.administration.forgetting, *moved, self._space, trail
        )
        self.previous_copy = PreviousCopy(state, event_log)
        registries = Registries(self.networks, self.services, self.policies, self.routers)
        of_hosts = HostServices(self.custom_records, self.exposure, self.plugs)
        self.apply = apply_service(context, self.declared, registries, of_hosts)
        self._event_router = self._make_event_router()
        self._tasks = BackgroundTasks(event_log)

    def _construct_dataplane(self, interface: str) -> None:
        """Construct sandboxes, the underlay that carries them, and participation in networks."""
        context, attachments = self._context, self.attachments
        gossip, directory = self.gossip, self.directory
        config, interval_s = self.config, self.config.reconcile_interval_s
        self.fabric = FabricTable()
        self.underlay_filter = UnderlayFilter(context, self.fabric, interval_s)
        self.encryption = EncryptionController(context, self.config)
        fabric, fast_path = self.fabric, FastPathSupport(config.fast_path, config.native_path)
        tables = self.underlay_filter, fast_path, self.encryption, fabric
        self.reconciler = Reconciler(context, attachments, *tables, interval_s)
        self.evpn = EvpnController(context, self.config, self.reconciler, self.fabric)
        self.traffic = TrafficMeter(context.kernel, self.reconciler)
        self.controls = SegmentControls(context, self.reconciler, attachments)
        self.underlay = Underlay(context, self.reconciler, interface)
        self.seed_contact = SeedContact(context)
        self.arrival_paths = ArrivalPaths(context, self.underlay, self.underlay_filter)
        self.native_path = NativePath(context, self.reconciler, self.arrival_paths, interval_s)
        self._zero_checksums = ZeroChecksumReport(context, self.declared, self.reconciler)
        self.paths = PathController(context, self.reconciler, self.encryption)
        self.mtu_controller = MtuController(
            context, self.reconciler, attachments, self.underlay, self.paths
        )
        self.encryption_switch = EncryptionSwitch(
            context, self.encryption, self.reconciler, self.mtu_controller
        )
        self.switch_service = SwitchService(directory, self.encryption, self.encryption_switch)
        self.netcheck = NetcheckService(
            context, self.paths, self.underlay_filter, ChecksumErrors(context, attachments)
        )
        self.drivers = NetworkDrivers(context, self.reconciler, attachments)
        self._preferences = ExposurePreferences(
            gossip.state, self.service_catalog, DeclaredExposures(directory)
        )
        plugged = PluggedInterfaces(gossip.state, self.fabric)
        self._sandbox_needs = SandboxNeeds(directory, attachments, (self._preferences, plugged))
        self.participation = ParticipationService(
            context, self.reconciler, attachments, self._sandbox_needs, self.encryption
        )
        records = (self.declared, self._plug_catalog, plugged)
        plugs = PlugController(context, *records, self.reconciler, self._space)
        host = (self.drivers.macvlan_ports, self.underlay, self.config.cluster_plugs)
        self.plugs = PlugService(context, plugs, self.participation, *host)

    def _construct_objects(self, readers: RecordReaders) -> None:
        """Construct what people create in the cluster: networks, services, policies, routers."""
        context = self._context
        self.policies = Policies(context, self.declared, readers.policies, self.reconciler)
        self.routers = Routers(context, self.declared, self._sandbox_needs, self.participation)
        self.multicast = MulticastController(context, self.declared, self.reconciler)
        self.networks = NetworkService(
            context,
            self.participation,
            self.ipam.reserves,
            self.encryption,
            self.declared,
            self._plug_catalog,
        )
        self.services = ServiceRegistry(
            context,
            self.declared,
            self.service_catalog,
            self.ipam.allocator,
            self.participation,
        )

    def _construct_endpoints(self) -> None:
        """Construct attach, detach, and the repair of attached endpoints."""
        directory, event_log = self.directory, self.event_log
        default_routes = DefaultRoutes(self._context, self.attachments)
        endpoints = EndpointContext(
            self._context,
            self.attachments,
            self.ipam.allocator,
            self.drivers,
            default_routes,
            SubnetRoutes(self._context, self.attachments),
            self.participation,
            self.fabric,
        )
        self.detacher = EndpointDetacher(endpoints)
        self._rollback = Rollback(self.detacher, directory, self.attachments, event_log)
        update_service = UpdateService(endpoints, self.reconciler)
        self.attacher = EndpointAttacher(endpoints, self._rollback, update_service)
        self.container_ends = ContainerEnds(self.attacher)
        state = self.gossip.state
        self._editor = EndpointEditor(endpoints)
        names = ContainerNames(state, directory, self.attachments, self._editor, event_log)
        self.restart = Restart(state, directory, self.attacher, self.attachments, names, event_log)
        self._repair = Repair(self.attacher, self.detacher, self.restart, self.reconciler)
        self._removed_networks = RemovedNetworks(self.gossip, directory, self.detacher, event_log)

    def _construct_exposure(self) -> None:
        """Construct this host's own endpoints, forwarding, published ports, and attach."""
        config, kernel = self.config, self._context.kernel
        rules = HostRules(self.gossip.node_id, kernel, self.event_log, config.reconcile_interval_s)
        host_endpoints = HostEndpoints(self._context, self.ipam.allocator, self.reconciler, rules)
        controller = ExposureController(
            self._context,
            host_endpoints,
            Eligibility(
                self._preferences, self.directory, host_endpoints, kernel, self.attachments
            ),
            HostForwarding(host_endpoints, rules, kernel, self.event_log, config.run_dir),
            self.reconciler,
            self.participation,
            self.mtu_controller,
        )
        published_ports = PublishedPorts(
            self._context,
            controller,
            rules,
            self.attachments,
            self.attacher.context.default_routes.default_route_moved,
            config.reconcile_interval_s,
        )
        allowed = parse_port_ranges(config.cluster_ports)
        self.exposure = ExposureService(
            controller,
            published_ports,
            Ingress(self._context, controller, rules, published_ports, self.attachments, allowed),
            DeclaredHost(
                self._context, self.declared.objects, controller, published_ports, allowed
            ),
            rules,
            self.attacher.endpoint_attached,
            self._editor.endpoint_renamed,
        )
        self.service_data_plane = ServiceDataPlane(
            self._context,
            self.attachments,
            self.service_catalog,
            host_endpoints,
            self.attacher.context.container_changed,
            controller.exposure_changed,
            self.config.services_at_connect,
        )
        self.runtime_endpoints = RuntimeEndpoints(self.attacher, self.detacher, self._editor)
        ends = (self.attacher, self.detacher, self._editor)
        self.attach_service = AttachService(*ends, self.restart, published_ports, self.paths)
        self.plugin_endpoints = PluginEndpoints(
            self.attach_service, self.attacher, self.detacher, published_ports
        )

    def _construct_dns(self) -> None:
        """Construct name resolution for containers."""
        self._names = NameResolution(
            self._context,
            self.attachments,
            self.declared,
            self.reconciler,
            self.attacher,
            self.runtime_endpoints,
            domain=self.config.dns_domain,
        )
        self.resolver, self.dns = self._names.resolver, self._names.service
        self.custom_records = self._names.custom_records

    def _make_event_router(self) -> EventRouter:
        return EventRouter(
            context=self._context,
            administration=self.administration,
            ipam=self.ipam,
            conflict_report=self.conflict_report,
            reconciler=self.reconciler,
            declared=self.declared,
            resolver=self.resolver,
            removed_records=self._names.removed_records,
            exposure=self.exposure,
            service_data_plane=self.service_data_plane,
            networks=self.networks,
            removed_networks=self._removed_networks,
            underlay=self.underlay,
            mtu_controller=self.mtu_controller,
            encryption=self.encryption,
            routers=self.routers.controller,
            encryption_switch=self.encryption_switch,
            evpn=self.evpn,
            plugs=self.plugs,
            paths=self.paths,
            diagnosis=self.diagnosis,
            netcheck=self.netcheck,
            multicast=self.multicast,
        )

    @property
    def controllers(self) -> tuple[Controller, ...]:
        """Return all controllers of this membership, in order of their start."""
        return (
            self.underlay_filter,
            self.encryption,
            self.reconciler,
            self.encryption_switch,
            self.evpn,
            *self.plugs.controllers,
            self.startup,
            self.routers.controller,
            self.former_identity,
            self.previous_copy,
            self.drivers.macvlan_ports,
            self.container_ends,
            self.administration.certificate,
            self.administration.sharing,
            self.administration.key_rotation,
            self._removed_networks,
            self.ipam.reclaim,
            self.ipam.reserves,
            self.declared,
            self._rollback,
            self.underlay,
            *self.native_path.controllers,
            self._zero_checksums,
            self.seed_contact,
            self.paths,
            *self.netcheck.controllers,
            self.conflict_report,
            self.administration.card_report,
            self._names.removed_records,
            *self.exposure.controllers,
            *self.service_data_plane.controllers,
            self.policies.drop_reports,
            self.controls.storm_reports,
            self.multicast,
        )

    async def start(self) -> None:
        """Adopt this node's sandboxes, then start all controllers."""
        self.gossip.start()
        self.startup.report_unreadable()
        await self.evpn.load()
        await self.native_path.firewall.attempt()
        await self.startup.adopt()
        await self.drivers.start()
        await self.attacher.context.default_routes.reconcile_all()
        await self.attacher.context.subnet_routes.ensure_all()
        await self._names.start()
        await self.exposure.start()
        for controller in self.controllers:
            self._tasks.start(controller.run, controller.name)
        self._tasks.start(self.reconciler.watch, "sandbox poll")
        for run, name in self.diagnosis.background:
            self._tasks.start(run, name)
        for follower in self.restart.followers:
            self._tasks.start(follower.run, f"{follower.kind} events")

    async def close(self) -> None:
        """Stop everything; the kernel keeps forwarding."""
        await self._tasks.close()
        await self._repair.close()
        self.diagnosis.close()
        await self._names.close()
        self.paths.close()
        self.multicast.close()
        self.gossip.close()
        self.evpn.close()
        self.plugs.controller.close()
        await self.reconciler.close()
        self.underlay_filter.close()
        self.native_path.close()
        self.exposure.close()
