"""Values for what is reached by a VTEP and has no endpoint record.

That is containers of a BGP EVPN fabric, and machines behind interfaces that members plug in.

Rows name a segment by its VNI, as the fabric does. Owns: the values, and their merge. Does not:
decide which are taken (`core.evpn`), or make rows of a sandbox of them (the planner).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from overlay.model import Ip, Mac, Vni


class FabricMac(NamedTuple):
    """A MAC behind an outside VTEP."""

    vni: Vni
    mac: Mac
    vtep: Ip


class FabricNeighbor(NamedTuple):
    """An address and its MAC."""

    vni: Vni
    ip: Ip
    mac: Mac


class FabricFlood(NamedTuple):
    """An outside VTEP that takes part in a segment: flooded frames go to it, too."""

    vni: Vni
    vtep: Ip


@dataclass(frozen=True, slots=True)
class FabricRows:
    """A table of the fabric: a MAC has one VTEP, and an address one MAC."""

    macs: frozenset[FabricMac] = frozenset()
    neighbors: frozenset[FabricNeighbor] = frozenset()
    floods: frozenset[FabricFlood] = frozenset()

    def __len__(self) -> int:
        return len(self.macs) + len(self.neighbors) + len(self.floods)

    def updated(self, newer: FabricRows) -> FabricRows:
        """Return all rows of both; where they differ on a MAC or an address, the newer ones."""
        macs = {(row.vni, row.mac) for row in newer.macs}
        ips = {(row.vni, row.ip) for row in newer.neighbors}
        return FabricRows(
            newer.macs.union(row for row in self.macs if (row.vni, row.mac) not in macs),
            newer.neighbors.union(row for row in self.neighbors if (row.vni, row.ip) not in ips),
            newer.floods | self.floods,
        )

    def without(self, other: FabricRows) -> FabricRows:
        """Return the rows that the other table does not have."""
        return FabricRows(
            self.macs - other.macs, self.neighbors - other.neighbors, self.floods - other.floods
        )

    def on(self, vnis: frozenset[Vni]) -> FabricRows:
        """Return the rows of some segments."""
        return FabricRows(
            frozenset(row for row in self.macs if row.vni in vnis),
            frozenset(row for row in self.neighbors if row.vni in vnis),
            frozenset(row for row in self.floods if row.vni in vnis),
        )

    @property
    def vteps(self) -> frozenset[Ip]:
        """Return all VTEPs that rows lead to."""
        return frozenset(row.vtep for rows in (self.macs, self.floods) for row in rows)


NO_FABRIC = FabricRows()
