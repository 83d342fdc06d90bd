"""The driver `ipvlan`: containers on a segment of the host, all with their parent's MAC."""

from __future__ import annotations

from overlay.agent.networks.drivers.parent_interface import ParentInterfaceDriver
from overlay.core.dataplane.network_drivers import IPVLAN
from overlay.errors import UsageError
from overlay.model import Endpoint, Mac


class IpvlanDriver(ParentInterfaceDriver):
    """Connects containers to a parent interface by ipvlan devices."""

    name = IPVLAN

    def require_supported(self, mac: Mac | None, rates: tuple[int | None, int | None]) -> None:
        """Raise UsageError for a rate, and for a MAC."""
        super().require_supported(mac, rates)
        if mac is not None:
            raise UsageError(
                "mac is not supported by driver ipvlan",
                why="its containers have the MAC of their parent interface",
                hint="Leave it out",
                field="mac",
            )

    def mac_of(self, endpoint: Endpoint) -> Mac | None:
        """Return None: the kernel gives the interface the MAC of its parent."""
