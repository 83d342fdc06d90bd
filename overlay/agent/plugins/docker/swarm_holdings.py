"""The addresses that a swarm has for its tasks and services, from Docker's API on a manager.

Blocks. Does not: know reservations, or what becomes of addresses that no task has.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from overlay.agent.runtimes.engines import query_docker


@dataclass(frozen=True, slots=True)
class SwarmHoldings:
    """A manager's view of its swarm."""

    addresses: frozenset[str]
    virtual: frozenset[tuple[str, str]]  # services with a virtual IP, and the network that has it


def swarm_holdings() -> SwarmHoldings | None:
    """Return what the swarm has; None if this host is not a manager. Raises OverlayError."""
    swarm = (query_docker("/info") or {}).get("Swarm") or {}
    if not swarm.get("ControlAvailable"):
        return None
    tasks, services = query_docker("/tasks") or [], query_docker("/services") or []
    virtual = list(_virtual(services))
    return SwarmHoldings(
        frozenset([*_of_tasks(tasks), *(ip for _, _, ip in virtual)]),
        frozenset((name, network_id) for name, network_id, _ in virtual),
    )


def _of_tasks(tasks: list[dict[str, Any]]) -> Iterator[str]:
    for task in tasks:
        for attachment in task.get("NetworksAttachments") or []:
            for address in attachment.get("Addresses") or []:
                yield str(address).partition("/")[0]


def _virtual(services: list[dict[str, Any]]) -> Iterator[tuple[str, str, str]]:
    for service in services:
        for each in (service.get("Endpoint") or {}).get("VirtualIPs") or []:
            address = str(each.get("Addr", "")).partition("/")[0]
            yield str(service["Spec"]["Name"]), str(each.get("NetworkID", "")), address
