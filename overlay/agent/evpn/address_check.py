"""Refuse an address for a container that a fabric has elsewhere.

Grants of addresses end at the cluster: another island, or a fabric, may use the same one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from overlay import limits
from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.errors import ConflictError
from overlay.model import Ip, Mac, Network, ip_text

_POLL_S = 0.05


async def require_not_outside(
    fabric: FabricTable, network: Network, ips: Sequence[Ip], mac: Mac | None
) -> None:
    """Raise ConflictError if the fabric has one of the addresses with another MAC than `mac`.

    One that has moved from there is still shown for a moment. With the same MAC it is moving.
    """
    deadline_s = asyncio.get_running_loop().time() + limits.EVPN_ADDRESS_WAIT_S
    while (found := fabric.place_of(network.vni, ips)) is not None and found.mac != mac:
        if asyncio.get_running_loop().time() >= deadline_s:
            raise ConflictError(
                f"{ip_text(found.ip)} is in use outside the cluster",
                why=f"the fabric has it at VTEP {ip_text(found.vtep)} on network {network.name}",
                hint="Choose another: --ip ADDRESS; the clusters of one network need an "
                "--ip-range each. To move a container here, remove it there first, or attach it "
                "with its --mac",
                field="ip",
            )
        await asyncio.sleep(_POLL_S)
