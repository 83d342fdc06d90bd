"""Networks whose containers overlayd could keep apart: those of which it has the bridges."""

from __future__ import annotations

from overlay.core.dataplane.network_drivers import CAPABILITIES
from overlay.errors import ConflictError


def require_bridged(name: str, driver: str, what: str) -> None:
    """Raise ConflictError for a network that cannot do `what`: its frames pass overlayd by."""
    capabilities = CAPABILITIES.get(driver)
    if capabilities is not None and not capabilities.has_sandbox:
        raise ConflictError(
            f"network {name} cannot {what}",
            why=f"driver {driver} puts containers on a physical segment, which overlayd does not "
            "forward",
            hint="Use an overlay network: overlayd network create NAME",
        )
