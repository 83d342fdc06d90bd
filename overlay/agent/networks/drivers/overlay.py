"""The driver `overlay`: sandboxes on all hosts, joined by VXLAN."""

from __future__ import annotations

from overlay.agent.networks.drivers.sandbox_port import SandboxPortDriver
from overlay.core.dataplane.network_drivers import OVERLAY


class OverlayDriver(SandboxPortDriver):
    """Connects containers to the cluster's own networks; the planner adds the tunnels."""

    name = OVERLAY
