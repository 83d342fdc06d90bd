"""The driver `bridge`: a sandbox on one host, without tunnels."""

from __future__ import annotations

from overlay.agent.networks.drivers.sandbox_port import SandboxPortDriver
from overlay.core.dataplane.network_drivers import BRIDGE


class BridgeDriver(SandboxPortDriver):
    """Connects containers to networks of this host alone."""

    name = BRIDGE
