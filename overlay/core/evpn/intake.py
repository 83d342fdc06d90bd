"""Which rows of the fabric are taken: those of outside VTEPs, within prefixes and bounds.

Members' VTEPs are programmed by their signed records alone. EVPN is not authenticated as gossip
is, so a next hop outside the configured prefixes is refused and counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from overlay import limits
from overlay.core.evpn.settings import EvpnSettings
from overlay.core.fabric import (
    NO_FABRIC,
    FabricFlood,
    FabricMac,
    FabricNeighbor,
    FabricRows,
)
from overlay.model import Ip, Vni

Row = TypeVar("Row", FabricMac, FabricNeighbor, FabricFlood)


@dataclass(frozen=True, slots=True)
class Intake:
    """The rows that are taken, by the network's VNI, and what was refused."""

    by_network: dict[Vni, FabricRows] = field(default_factory=dict)
    outside: dict[Ip, int] = field(default_factory=dict)  # rows by VTEP outside the prefixes
    over_limit: int = 0  # rows beyond the bounds

    def rows(self, vni: Vni) -> FabricRows:
        """Return the rows of a network."""
        return self.by_network.get(vni, NO_FABRIC)

    @property
    def vteps(self) -> frozenset[Ip]:
        """Return the outside VTEPs, which the filter of the VXLAN port admits."""
        return frozenset().union(*(rows.vteps for rows in self.by_network.values()))


def take(
    rows: FabricRows,
    settings: EvpnSettings,
    members: frozenset[Ip],
    networks: Mapping[Vni, Vni],
) -> Intake:
    """Return what is taken of the fabric's rows.

    `members` are the VTEPs of the cluster, this host's among them; `networks` has the network of
    each exported segment, both by VNI.
    """
    outside: Counter[Ip] = Counter()
    judged = {vtep: vtep not in members and settings.holds(vtep) for vtep in rows.vteps}
    for macs in (rows.macs, rows.floods):
        outside.update(row.vtep for row in macs if not judged[row.vtep] and row.vtep not in members)
    by_network: dict[Vni, FabricRows] = {}
    room, refused = limits.EVPN_ROWS_MAX, 0
    for network in sorted(set(networks.values())):
        vnis = frozenset(vni for vni, of in networks.items() if of == network)
        taken, over = _of_network(rows.on(vnis), judged, room)
        refused += over
        if taken:
            by_network[network] = taken
            room -= len(taken.macs) + len(taken.neighbors)
    return Intake(by_network, dict(outside), refused)


def _of_network(rows: FabricRows, judged: Mapping[Ip, bool], room: int) -> tuple[FabricRows, int]:
    room = min(room, limits.EVPN_ROWS_PER_NETWORK_MAX)
    macs, over_macs = _first({row for row in rows.macs if judged[row.vtep]}, room)
    known = {(row.vni, row.mac) for row in macs}
    # A neighbor whose MAC has no VTEP here would be answered for, and its frames flooded.
    wanted = {row for row in rows.neighbors if (row.vni, row.mac) in known}
    neighbors, over_ips = _first(wanted, room - len(macs))
    floods, over_floods = _first(
        {row for row in rows.floods if judged[row.vtep]}, limits.EVPN_VTEPS_PER_NETWORK_MAX
    )
    return FabricRows(macs, neighbors, floods), over_macs + over_ips + over_floods


def _first(rows: set[Row], count: int) -> tuple[frozenset[Row], int]:
    """Return at most `count` rows, the same for the same rows, and how many there are beyond."""
    if len(rows) <= count:
        return frozenset(rows), 0
    return frozenset(sorted(rows)[: max(0, count)]), len(rows) - max(0, count)
