"""Members whose software does not keep isolated containers apart.

Nothing becomes isolated while one is there, but one may come back, or join, later.
"""

from __future__ import annotations

from collections.abc import Iterator

from overlay.agent.declared.software import older_members, require_software
from overlay.agent.process.controller import Fault
from overlay.agent.records.directory import Directory
from overlay.core.dataplane.planning.isolation import ISOLATION_SOFTWARE
from overlay.core.node import Node
from overlay.core.vlan.vlans import vlans_of
from overlay.model import is_isolated


def require_isolating_members(node: Node, title: str) -> None:
    """Raise ConflictError while a live member would ignore isolation and VLANs."""
    require_software(node, ISOLATION_SOFTWARE, title, "would let containers meet all the same")


def isolation_faults(node: Node, directory: Directory) -> Iterator[Fault]:
    """Yield the live members that isolate nothing, where something is isolated."""
    old = older_members(node, ISOLATION_SOFTWARE)
    if not old or not _is_any_apart(directory):
        return
    for member in old:
        yield Fault(
            f"{member} isolates no ports and ignores VLANs",
            "Its own containers reach each other. Other hosts' isolated ones, and those in VLANs, "
            "they do not. Upgrade it: its version is older than 0.4.0",
            "error",
        )


def _is_any_apart(directory: Directory) -> bool:
    return any(
        is_isolated(network, placed.endpoint) or vlans_of(placed.endpoint).is_any
        for network in directory.networks()
        for placed in directory.endpoints(network.vni)
    )
