"""The driver `macvlan`: each container has a MAC of its own on a segment of the host."""

from __future__ import annotations

from overlay.agent.networks.drivers.parent_interface import ParentInterfaceDriver
from overlay.core.dataplane.network_drivers import MACVLAN
from overlay.model import Endpoint, Mac


class MacvlanDriver(ParentInterfaceDriver):
    """Connects containers to a parent interface by macvlan devices."""

    name = MACVLAN

    def mac_of(self, endpoint: Endpoint) -> Mac | None:
        """Return the MAC that the endpoint's record has."""
        return endpoint.mac
