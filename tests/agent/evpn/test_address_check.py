"""An attach whose address the fabric has elsewhere."""

from __future__ import annotations

import asyncio

import pytest
from overlay import limits
from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.agent.evpn.address_check import require_not_outside
from overlay.core.evpn.intake import Intake
from overlay.core.fabric import FabricMac, FabricNeighbor, FabricRows
from overlay.errors import ConflictError
from overlay.model import Mac, Network, NodeId, Subnet, Vni, parse_ip

VNI = Vni(4100)
WIDE = Network(
    VNI, "wide", (Subnet(parse_ip("10.9.0.0"), 24, parse_ip("10.9.0.1")),), NodeId(b"A" * 16)
)
MAC, IP, FREE = Mac(b"\x02leaf1"), parse_ip("10.9.0.7"), parse_ip("10.9.0.8")
LEAF = parse_ip("192.0.2.2")


def fabric() -> FabricTable:
    """Return a table with one container."""
    table = FabricTable()
    rows = FabricRows(
        frozenset({FabricMac(VNI, MAC, LEAF)}), frozenset({FabricNeighbor(VNI, IP, MAC)})
    )
    table.publish(Intake({VNI: rows}), frozenset({VNI}))
    return table


async def test_an_address_in_use_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the VTEP that has it; a free address and another network are not concerned."""
    monkeypatch.setattr(limits, "EVPN_ADDRESS_WAIT_S", 0.0)
    await require_not_outside(fabric(), WIDE, [FREE], None)
    await require_not_outside(FabricTable(), WIDE, [IP], None)

    with pytest.raises(ConflictError, match=r"10\.9\.0\.7 is in use outside") as caught:
        await require_not_outside(fabric(), WIDE, [FREE, IP], None)

    assert "192.0.2.2" in caught.value.why


async def test_a_container_that_moves_here_is_let_in() -> None:
    """By its MAC, or as soon as the fabric has withdrawn it."""
    await require_not_outside(fabric(), WIDE, [IP], MAC)
    table = fabric()

    waiting = asyncio.ensure_future(require_not_outside(table, WIDE, [IP], None))
    await asyncio.sleep(0)
    assert not waiting.done()
    table.clear()

    await waiting
