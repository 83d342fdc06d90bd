"""A client of virtual addresses: what it may reach, and what its table holds."""

from __future__ import annotations

import functools
from dataclasses import dataclass

from overlay.agent.services.host_client import Place
from overlay.core.services.values import VirtualPort
from overlay.kernel.services import lost_flows
from overlay.kernel.services.lost_flows import Losses
from overlay.kernel.services.table_plan import TablePlan
from overlay.kernel.services.table_writer import WrittenTable


@dataclass(frozen=True, slots=True, eq=False)
class Reachable:
    """The virtual ports of some networks, and the table for them; the same while they are."""

    by_network: tuple[tuple[VirtualPort, ...], ...]
    plan: TablePlan

    @property
    def ports(self) -> tuple[VirtualPort, ...]:
        """Return all of them."""
        return tuple(port for ports in self.by_network for port in ports)


@dataclass(frozen=True, slots=True)
class Client:
    """A container, or this host, with a table: what it may reach, and what was written where.

    `path` is that of the container, `place` that of the table. Until `rests_until_s` of the event
    loop's clock nobody looks for changes by others.
    """

    path: str
    place: Place
    reachable: Reachable
    written: WrittenTable
    rests_until_s: float = 0.0


@functools.lru_cache(maxsize=2)
def losses_of(before: Reachable | None, after: Reachable) -> Losses:
    """Return what the containers lost whose reach has changed, computed once for all of them."""
    if before is None:
        return lost_flows.at_start(after.ports)
    return lost_flows.between(before.ports, after.ports, before.plan, after.plan)
