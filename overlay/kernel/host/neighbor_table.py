"""Read how full the kernel's neighbor tables are.

All namespaces share one table per family (gc_thresh3, Documentation/networking/ip-sysctl.rst), so
the containers' own ARP entries count against the host's limit. Above it the kernel refuses new
entries, and packets are lost. Permanent entries such as overlayd's are exempt since Linux 5.0.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final

_FAMILIES: Final = (("IPv4", "ipv4", "arp_cache"), ("IPv6", "ipv6", "ndisc_cache"))


@dataclass(frozen=True, slots=True)
class NeighborTable:
    """The neighbor table of one address family."""

    family: str
    sysctl: str
    entries: int
    limit: int
    overflows: int  # entries that the kernel has refused since boot


def neighbor_tables(proc: Path = Path("/proc")) -> list[NeighborTable]:
    """Return the neighbor tables.

    The kernel shows them only in the initial network namespace.
    """
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
    """Return the counters of a /proc/net/stat file by name.

    The file has hexadecimal columns and a line for each CPU. `entries` is the whole table's count
    on every line; all other columns are summed.
    """
    header, *lines = text.splitlines()
    names = header.split()
    rows = [[int(word, 16) for word in line.split()] for line in lines]
    totals = {name: sum(row[i] for row in rows) for i, name in enumerate(names)}
    if rows:
        totals["entries"] = rows[0][names.index("entries")]
    return totals
