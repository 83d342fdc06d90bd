"""Bounds of routers between networks."""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Final


# Each pair of networks is a veth pair on each host that has one of them.
ROUTER_NETWORKS_MAX: Final = 16
ROUTERS_PER_NETWORK_MAX: Final = 16  # more cannot be created, and do not count
