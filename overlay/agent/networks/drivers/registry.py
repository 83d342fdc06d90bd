"""The network drivers of this node, by name.

Owns: the list of drivers, and the choice of the one that a network or an attachment needs.
"""

from __future__ import annotations

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.gossip.context import NodeContext
from overlay.agent.networks.drivers.bridge import BridgeDriver
from overlay.agent.networks.drivers.driver import NetworkDriver
from overlay.agent.networks.drivers.ipvlan import IpvlanDriver
from overlay.agent.networks.drivers.macvlan import MacvlanDriver
from overlay.agent.networks.drivers.overlay import OverlayDriver
from overlay.agent.networks.drivers.parent_interface import MacvlanPorts
from overlay.agent.networks.drivers.port_removals import PortRemovals
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.core.dataplane.network_drivers import driver_of
from overlay.model import Network


class NetworkDrivers:
    """All drivers, and what two of them share: ports' removal, interfaces on parents."""

    def __init__(
        self, context: NodeContext, reconciler: Reconciler, attachments: Attachments
    ) -> None:
        self.macvlan_ports = MacvlanPorts(context, attachments)
        self.port_removals = PortRemovals(context, reconciler)
        self._directory = context.directory
        drivers: tuple[NetworkDriver, ...] = (
            OverlayDriver(context, reconciler, attachments, self.port_removals),
            BridgeDriver(context, reconciler, attachments, self.port_removals),
            MacvlanDriver(self.macvlan_ports),
            IpvlanDriver(self.macvlan_ports),
        )
        self._by_name = {driver.name: driver for driver in drivers}

    def of(self, network: Network) -> NetworkDriver | None:
        """Return the driver of a network; None for a kind of a newer version."""
        return self._by_name.get(driver_of(network))

    def require(self, network: Network) -> NetworkDriver:
        """Return the driver of a network that this version supports."""
        driver = self.of(network)
        assert driver is not None, "the directory refuses networks of other kinds"
        return driver

    def of_attachment(self, attachment: Attachment) -> NetworkDriver:
        """Return the driver that made an attachment's interface.

        The network may be gone, or be another one of the same VNI by now; then any driver that
        makes interfaces of this form removes it.
        """
        network = self._directory.network_by_vni(attachment.vni)
        driver = None if network is None else self.of(network)
        if driver is not None and driver.owns(attachment):
            return driver
        return next(driver for driver in self._by_name.values() if driver.owns(attachment))

    async def start(self) -> None:
        """Finish what a crash interrupted."""
        await self.macvlan_ports.start()

    async def differences(self) -> list[tuple[str, str]]:
        """Return the interfaces that are gone and that no pass checks: network and description."""
        return await self.macvlan_ports.differences()
