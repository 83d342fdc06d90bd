"""Report members whose software does not route.

A router cannot be written while one is there, but one may come back, or join, later.
"""

from __future__ import annotations

from collections.abc import Iterator

from overlay.agent.declared.software import older_members
from overlay.agent.process.controller import Fault
from overlay.agent.records.router_catalog import RouterCatalog
from overlay.core.node import Node
from overlay.core.router.router import ROUTER_SOFTWARE


def old_member_faults(node: Node, routers: RouterCatalog) -> Iterator[Fault]:
    """Yield the live members that do not route, if there is a router."""
    for member in older_members(node, ROUTER_SOFTWARE) if routers.all() else ():
        yield Fault(
            f"{member} does not route between networks",
            "Its containers reach no other network, and are reached from none. Upgrade it: its "
            "version is older than 0.4.0",
            "error",
        )
