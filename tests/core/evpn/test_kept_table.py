"""The fabric's table is kept while no session is up, and until it has settled after."""

from __future__ import annotations

from overlay.core.evpn.kept_table import KeptTable
from overlay.core.fabric import FabricFlood, FabricMac, FabricNeighbor, FabricRows
from overlay.model import Mac, Vni, parse_ip

VNI = Vni(4100)
VNIS = frozenset({VNI})
LEAF, OTHER = parse_ip("10.9.0.2"), parse_ip("10.9.0.4")
MAC = Mac(bytes.fromhex("020000000202"))
IP = parse_ip("10.32.0.2")
AT_LEAF = FabricRows(
    frozenset({FabricMac(VNI, MAC, LEAF)}),
    frozenset({FabricNeighbor(VNI, IP, MAC)}),
    frozenset({FabricFlood(VNI, LEAF)}),
)
NOTHING = FabricRows()


def settled_table() -> KeptTable:
    """Return a table that had a session from 0 s on, and settled at 3 s."""
    table = KeptTable(settle_s=2.0, settle_max_s=60.0)
    table.update(0.0, AT_LEAF, "first", VNIS)
    table.update(3.0, AT_LEAF, "first", VNIS)
    return table


def test_rows_go_at_once_while_a_session_is_up() -> None:
    """A withdrawal takes effect at once in a settled table."""
    table = settled_table()

    table.update(3.1, NOTHING, "first", VNIS)

    assert table.rows == NOTHING


def test_rows_stay_while_no_session_is_up() -> None:
    """The death of bgpd empties the kernel's table, and not this one."""
    table = settled_table()

    table.update(3.1, NOTHING, None, VNIS)
    table.update(1000.0, NOTHING, None, VNIS)

    assert table.rows == AT_LEAF
    assert not table.is_settled


def test_nothing_goes_before_the_table_has_settled() -> None:
    """After a session is up again its routes come one by one."""
    table = settled_table()
    table.update(3.1, NOTHING, None, VNIS)

    table.update(10.0, NOTHING, "second", VNIS)
    table.update(11.5, AT_LEAF, "second", VNIS)  # 1.5 s: not settled
    table.update(12.5, AT_LEAF, "second", VNIS)  # changed 1 s ago
    assert (table.rows, table.is_settled) == (AT_LEAF, False)
    table.update(13.6, NOTHING, "second", VNIS)  # the change restarts the wait
    assert table.rows == AT_LEAF
    table.update(15.7, NOTHING, "second", VNIS)

    assert (table.rows, table.is_settled) == (NOTHING, True)


def test_a_table_that_never_rests_counts_at_last() -> None:
    """A fabric that changes all the time must not keep old rows for ever."""
    table = settled_table()
    table.update(4.0, NOTHING, "second", VNIS)

    for step in range(61):
        table.update(4.0 + step, AT_LEAF if step % 2 else NOTHING, "second", VNIS)

    assert (table.rows, table.is_settled) == (NOTHING, True)


def test_a_restart_of_frr_begins_anew() -> None:
    """A new zebra may delete the rows of the former one while sessions stay up."""
    table = settled_table()

    table.update(3.1, NOTHING, "another zebra", VNIS)

    assert table.rows == AT_LEAF


def test_a_mac_that_moved_has_one_place_while_kept() -> None:
    """Additions count at once, and replace what is kept of the same MAC."""
    table = settled_table()
    moved = FabricRows(frozenset({FabricMac(VNI, MAC, OTHER)}))

    table.update(3.1, moved, None, VNIS)

    assert table.rows.macs == moved.macs
    assert table.rows.neighbors == AT_LEAF.neighbors


def test_rows_of_a_network_that_ended_go_at_once() -> None:
    """Kept rows belong to exported segments only."""
    table = settled_table()

    table.update(3.1, NOTHING, None, frozenset())

    assert table.rows == NOTHING


def test_adopted_rows_stay_until_a_session_settles() -> None:
    """An agent that starts while no session is up has them from the kernel."""
    table = KeptTable(settle_s=2.0, settle_max_s=60.0)
    table.adopt(0.0, AT_LEAF, hold_s=100.0)
    table.update(0.0, NOTHING, None, VNIS)
    table.update(99.0, NOTHING, None, VNIS)
    assert table.rows == AT_LEAF

    table.update(99.5, NOTHING, "first", VNIS)
    table.update(101.6, NOTHING, "first", VNIS)

    assert table.rows == NOTHING


def test_adopted_rows_are_held_for_a_while_only() -> None:
    """Those that were told again since count as any others."""
    table = KeptTable()
    table.adopt(0.0, AT_LEAF, hold_s=100.0)
    told = FabricRows(AT_LEAF.macs, NOTHING.neighbors, NOTHING.floods)

    table.update(100.0, told, None, VNIS)

    assert table.rows == told
    table.update(1000.0, NOTHING, None, VNIS)
    assert table.rows == told
