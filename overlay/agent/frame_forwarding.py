"""This host's part in forwarding: sandboxes, what carries their frames, and the paths to members.

Owns: the construction of these, and which of them an event concerns. Does not: know endpoints,
services or the host's own interfaces on networks.
"""

from __future__ import annotations

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
from overlay.agent.encryption.controller import EncryptionController
from overlay.agent.encryption.switch import EncryptionSwitch
from overlay.agent.encryption.switch_service import SwitchService
from overlay.agent.evpn.controller import EvpnController
from overlay.agent.gossip.context import NodeContext
from overlay.agent.native.controller import NativePath
from overlay.agent.native.zero_checksum_report import ZeroChecksumReport
from overlay.agent.networks.drivers.registry import NetworkDrivers
from overlay.agent.paths.controller import PathController
from overlay.agent.process.config import Config
from overlay.agent.state.attachments import Attachments
from overlay.model import NodeId


class FrameForwarding:
    """The parts of forwarding on this node; `interface` is that of the underlay."""

    def __init__(
        self,
        context: NodeContext,
        attachments: Attachments,
        declared: DeclaredService,
        config: Config,
        interface: str,
    ) -> None:
        interval_s = config.reconcile_interval_s
        self.fabric = FabricTable()
        self.underlay_filter = UnderlayFilter(context, self.fabric, interval_s)
        self.encryption = EncryptionController(context, config)
        self.reconciler = Reconciler(
            context,
            attachments,
            self.underlay_filter,
            FastPathSupport(config.fast_path, config.native_path),
            self.encryption,
            self.fabric,
            interval_s,
        )
        self.evpn = EvpnController(context, config, self.reconciler, self.fabric)
        self.traffic = TrafficMeter(context.kernel, self.reconciler)
        self.controls = SegmentControls(context, self.reconciler, attachments)
        self.underlay = Underlay(context, self.reconciler, interface)
        self.seed_contact = SeedContact(context)
        self.arrival_paths = ArrivalPaths(context, self.underlay, self.underlay_filter)
        self.native_path = NativePath(context, self.reconciler, self.arrival_paths, interval_s)
        self.zero_checksums = ZeroChecksumReport(context, declared, self.reconciler)
        self.paths = PathController(context, self.reconciler, self.encryption)
        self.mtu_controller = MtuController(
            context, self.reconciler, attachments, self.underlay, self.paths
        )
        self.encryption_switch = EncryptionSwitch(
            context, self.encryption, self.reconciler, self.mtu_controller
        )
        self.switch_service = SwitchService(
            context.directory, self.encryption, self.encryption_switch
        )
        self.drivers = NetworkDrivers(context, self.reconciler, attachments)

    # --- events (called by the event router) ----------------------------------------------

    def peer_card_accepted(self, node_id: NodeId) -> None:
        """Follow a new card of another member, which may have another address."""
        self.encryption.trigger()
        self.reconciler.mark_dirty()
        self.paths.peer_moved(node_id)

    def member_changed(self, *, has_left: bool) -> None:
        """Follow a change of a member's state."""
        self.underlay.trigger()
        self.encryption.trigger()
        self.encryption_switch.trigger()
        self.paths.trigger()
        if has_left:
            self.reconciler.mark_dirty()

    def node_forgotten(self) -> None:
        """Follow that a member was forgotten."""
        self.encryption.trigger()
        self.encryption_switch.trigger()

    def networks_changed(self) -> None:
        """Follow a change of the records of the cluster's scope, such as a network's definition."""
        self.paths.trigger()
        self.encryption.trigger()
        self.encryption_switch.trigger()
        self.evpn.trigger()
        self.mtu_controller.networks_changed()
        self.reconciler.mark_dirty()

    async def close(self) -> None:
        """Stop watching and probing; the kernel keeps forwarding."""
        self.paths.close()
        self.evpn.close()
        await self.reconciler.close()
        self.underlay_filter.close()
        self.native_path.close()
