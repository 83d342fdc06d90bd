"""The fabric's rows that a sandbox still forwards by, for an agent that starts.

FRR removes its rows from the shadow when the last session ends; those that the agent kept are in
the sandboxes alone. Owns: finding them there. Does not: know how long they count (`kept_table`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from overlay.core.dataplane.state import FdbRow, FloodRow, NeighborRow, SandboxState
from overlay.core.dataplane.tunnel_devices import DEVICE_BASES
from overlay.core.fabric import FabricFlood, FabricMac, FabricNeighbor, FabricRows
from overlay.model import Ip, Network, Vni

_DEVICE: Final = re.compile(rf"(?:{'|'.join(DEVICE_BASES)}|br)(\d+)")


def adopted_rows(
    network: Network, state: SandboxState, is_outside: Callable[[Ip], bool]
) -> FabricRows:
    """Return the rows of a sandbox that lead to outside VTEPs."""
    macs: set[FabricMac] = set()
    floods: set[FabricFlood] = set()
    neighbors: set[FabricNeighbor] = set()
    for row in state.rows:
        match row:
            case FdbRow(link, mac, vtep) if is_outside(vtep):
                macs.add(FabricMac(_vni(network, link), mac, vtep))
            case FloodRow(link, vtep) if is_outside(vtep):
                floods.add(FabricFlood(_vni(network, link), vtep))
            case NeighborRow(link, ip, mac):
                neighbors.add(FabricNeighbor(_vni(network, link), ip, mac))
            case _:
                pass
    known = {(row.vni, row.mac) for row in macs}
    return FabricRows(
        frozenset(macs),
        frozenset(row for row in neighbors if (row.vni, row.mac) in known),
        frozenset(floods),
    )


def _vni(network: Network, link: str) -> Vni:
    found = _DEVICE.fullmatch(link)
    return Vni(network.vni + (int(found[1]) if found else 0))
