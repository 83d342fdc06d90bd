"""Counters and limits of this namespace, read from /proc."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

from overlay import limits
from overlay.core.netcheck.facts import FullTable
from overlay.kernel.host.neighbor_table import neighbor_tables

PROC: Final = Path("/proc")
_MODULES: Final = ("vxlan", "bridge", "veth", "nf_tables")
_CHECKSUM_ERRORS: Final = b"InCsumErrors"
_CONNTRACK: Final = "net.netfilter.nf_conntrack_max"


@dataclass(frozen=True, slots=True)
class Counters:
    """Counts since the namespace was made."""

    rp_filter_drops: int = 0
    udp_checksum_errors: int = 0
    tcp_checksum_errors: int = 0
    buffer_errors: int = 0
    conntrack_drops: int = 0
    neighbor_overflows: int = 0


class ChecksumErrors(NamedTuple):
    """The packets with a wrong checksum since the namespace was made."""

    udp: int = 0
    tcp: int = 0


def read_checksum_errors(proc: Path = PROC) -> ChecksumErrors:
    """Return these alone, in a quarter of the time that all counters take."""
    net, found = proc / "thread-self/net", {b"Udp": 0, b"Tcp": 0}
    with contextlib.suppress(OSError, ValueError):
        lines = (net / "snmp").read_bytes().splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=False):
            if (group := names.partition(b":")[0]) in found:
                found[group] = int(values.split()[names.split().index(_CHECKSUM_ERRORS)])
    with contextlib.suppress(OSError, ValueError):
        _, _, rest = (net / "snmp6").read_bytes().partition(b"Udp6" + _CHECKSUM_ERRORS)
        found[b"Udp"] += int(rest.partition(b"\n")[0])
    return ChecksumErrors(found[b"Udp"], found[b"Tcp"])


def read_counters(proc: Path = PROC) -> Counters:
    """Return the counters now."""
    net = proc / "thread-self/net" if (proc / "thread-self/net").exists() else proc / "net"
    snmp = _pairs(net / "snmp") | _pairs(net / "netstat")
    snmp6 = _listed(net / "snmp6")
    return Counters(
        snmp.get("TcpExt.IPReversePathFilter", 0),
        snmp.get("Udp.InCsumErrors", 0) + snmp6.get("Udp6InCsumErrors", 0),
        snmp.get("Tcp.InCsumErrors", 0),
        snmp.get("Udp.RcvbufErrors", 0) + snmp6.get("Udp6RcvbufErrors", 0),
        _conntrack_drops(net / "stat/nf_conntrack"),
        sum(table.overflows for table in neighbor_tables(proc)),
    )


def full_tables(before: Counters, after: Counters, proc: Path = PROC) -> list[FullTable]:
    """Return the tables that are nearly full, with what they refused between two readings.

    A neighbor table counts once it has refused something: it holds permanent entries as well, those
    of overlayd above all, which the limit does not concern.
    """
    found = []
    conntrack = proc / "sys/net/netfilter"
    with contextlib.suppress(OSError, ValueError):
        count = _number(conntrack / "nf_conntrack_count")
        limit = _number(conntrack / "nf_conntrack_max")
        refused = after.conntrack_drops - before.conntrack_drops
        if limit and (count >= limits.NEIGHBORS_FULL * limit or refused):
            found.append(FullTable("connection-tracking", count, limit, _CONNTRACK, refused))
    refused = after.neighbor_overflows - before.neighbor_overflows
    found += [
        FullTable(f"{table.family} neighbor", table.entries, table.limit, table.sysctl, refused)
        for table in neighbor_tables(proc)
        if refused and table.entries >= limits.NEIGHBORS_FULL * table.limit
    ]
    return found


def rp_filter(interface: str, proc: Path = PROC) -> int:
    """Return the mode in force on an interface: the greater of its own and that of `all`."""
    found = [0]
    for name in ("all", interface):
        with contextlib.suppress(OSError, ValueError):
            found.append(_number(proc / "sys/net/ipv4/conf" / name / "rp_filter"))
    return max(found)


def is_ipv6_disabled(interface: str, proc: Path = PROC) -> bool:
    """Return whether an interface has no IPv6."""
    with contextlib.suppress(OSError, ValueError):
        return _number(proc / "sys/net/ipv6/conf" / interface / "disable_ipv6") == 1
    return False


def missing_modules(release: str, root: Path = Path("/")) -> list[str]:
    """Return the modules that overlayd needs and the running kernel lacks.

    Empty if nothing tells which modules it has, as in a container.
    """
    folder = root / "lib/modules" / release
    known = ""
    for name in ("modules.builtin", "modules.dep"):
        with contextlib.suppress(OSError):
            known += (folder / name).read_text(encoding="utf-8", errors="replace")
    loaded = root / "sys/module"
    if not known:
        return []
    return [
        name for name in _MODULES if f"/{name}.ko" not in known and not (loaded / name).exists()
    ]


def neighbor_state(address: str, proc: Path = PROC) -> tuple[bool, bool]:
    """Return whether an IPv4 address is on this host's segment, and whether its MAC is missing."""
    with contextlib.suppress(OSError):
        lines = (proc / "thread-self/net/arp").read_text(encoding="ascii").splitlines()
        for line in lines[1:]:
            words = line.split()
            if words[:1] == [address]:
                return True, not int(words[2], 16) & 2  # ATF_COM (linux/if_arp.h)
    return False, False


def _number(path: Path) -> int:
    return int(path.read_text(encoding="ascii"))


def _pairs(path: Path) -> dict[str, int]:
    """Return the counters of a file with a line of names before each line of values."""
    found: dict[str, int] = {}
    with contextlib.suppress(OSError, ValueError):
        lines = path.read_text(encoding="ascii").splitlines()
        for names, values in zip(lines[::2], lines[1::2], strict=False):
            group, *keys = names.split()
            counts = zip(keys, values.split()[1:], strict=False)
            found |= {f"{group[:-1]}.{key}": int(count) for key, count in counts}
    return found


def _listed(path: Path) -> dict[str, int]:
    """Return the counters of a file with a name and a value on each line."""
    with contextlib.suppress(OSError, ValueError):
        lines = path.read_text(encoding="ascii").splitlines()
        return {words[0]: int(words[1]) for line in lines if len(words := line.split()) == 2}
    return {}


def _conntrack_drops(path: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        header, *lines = path.read_text(encoding="ascii").splitlines()
        names = header.split()
        columns = [i for i, name in enumerate(names) if name in ("drop", "early_drop")]
        return sum(int(line.split()[i], 16) for line in lines for i in columns)
    return 0
