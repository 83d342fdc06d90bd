"""The fabric's rows, as the data plane has them."""

from __future__ import annotations

from overlay.agent.dataplane.fabric_table import FabricTable
from overlay.core.evpn.intake import Intake
from overlay.core.fabric import FabricMac, FabricRows
from overlay.model import Mac, Vni, parse_ip

BLUE, RED = Vni(4100), Vni(4200)
LEAF = parse_ip("10.9.0.2")


def rows(vni: Vni) -> FabricRows:
    """Return a table with one MAC."""
    return FabricRows(frozenset({FabricMac(vni, Mac(b"\x02leaf1"), LEAF)}))


def test_only_networks_that_changed_are_announced() -> None:
    """Appeared, changed, gone: each once, and nothing for what is as before."""
    table = FabricTable()
    changed: list[Vni] = []
    table.changed.connect(changed.append)

    table.publish(Intake({BLUE: rows(BLUE)}), frozenset({BLUE}))
    table.publish(Intake({BLUE: rows(BLUE), RED: rows(RED)}), frozenset({BLUE, RED}))
    assert changed == [BLUE, RED]
    assert table.vteps == {LEAF}
    assert table.vnis == {BLUE, RED}
    assert table.rows(BLUE) == rows(BLUE)
    table.clear()

    assert changed == [BLUE, RED, BLUE, RED]
    assert (table.vteps, table.vnis, len(table.rows(BLUE))) == (frozenset(), frozenset(), 0)
