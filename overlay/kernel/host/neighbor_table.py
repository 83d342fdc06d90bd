"""How full the kernel's neighbour tables are.

The tables are one for all namespaces (Documentation/networking/ip-sysctl, gc_thresh3), so the
containers' own ARP entries count against the host's limit; above it the kernel refuses new
ones and packets are lost. Permanent rows, which ours are, are exempt since Linux 5.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FAMILIES: Final = (("IPv4", "ipv4", "arp_cache"), ("IPv6", "ipv6", "ndisc_cache"))


@dataclass(frozen=True, slots=True)
class NeighborTable:
    """One address family's table."""

    family: str
    sysctl: str
    entries: int
    limit: int
    overflows: int  # since boot: entries that the kernel refused


def neighbor_tables(proc: Path = Path("/proc")) -> list[NeighborTable]:
    """Return the tables that this kernel shows: only in the first network namespace."""
    found = []
    for family, folder, cache in _FAMILIES:
        path = proc / "sys/net" / folder / "neigh/default/gc_thresh3"
        try:
            limit = int(path.read_text(encoding="ascii"))
            counts = _counts((proc / "net/stat" / cache).read_text(encoding="ascii"))
        except (OSError, ValueError):
            continue
        name = f"net.{folder}.neigh.default.gc_thresh3"
        entries = counts.get("entries", 0)
        found.append(NeighborTable(family, name, entries, limit, counts.get("table_fulls", 0)))
    return found


def _counts(text: str) -> dict[str, int]:
    """Read the columns of /proc/net/stat: hexadecimal, a line for each CPU; `entries` is the
    whole table's on every line, all others are to be added up."""
    header, *lines = text.splitlines()
    names = header.split()
    rows = [[int(word, 16) for word in line.split()] for line in lines]
    totals = {name: sum(row[i] for row in rows) for i, name in enumerate(names)}
    if rows:
        totals["entries"] = rows[0][names.index("entries")]
    return totals
