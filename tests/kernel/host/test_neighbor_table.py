from __future__ import annotations

from pathlib import Path

from overlay.kernel.host import neighbor_table


def test_tables_are_read(tmp_path: Path) -> None:
    """Entries count once, and refusals are summed over the CPUs."""
    sysctl = tmp_path / "sys/net/ipv4/neigh/default"
    sysctl.mkdir(parents=True)
    (sysctl / "gc_thresh3").write_text("1024\n")
    counts = tmp_path / "net/stat"
    counts.mkdir(parents=True)
    lines = ["entries  allocs   table_fulls ", "000003e8 00000001 00000002", "000003e8 00000000 1"]
    (counts / "arp_cache").write_text("\n".join(lines) + "\n")

    (table,) = neighbor_table.neighbor_tables(tmp_path)

    assert (table.family, table.entries, table.limit, table.overflows) == ("IPv4", 1000, 1024, 3)
    assert table.sysctl == "net.ipv4.neigh.default.gc_thresh3"


def test_a_namespace_without_the_tables_has_none(tmp_path: Path) -> None:
    """The kernel shows the tables only in the initial network namespace."""
    assert neighbor_table.neighbor_tables(tmp_path) == []
