"""Find what the tables of iptables-legacy could do to the VXLAN packets of members.

These tables are not nftables'; only the program that wrote them can show their rules. It is asked
only where there are any, since it loads the modules of tables otherwise.
"""

from __future__ import annotations

import itertools
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from overlay import limits
from overlay.core.native.firewall import VxlanTraffic, judging_rule
from overlay.core.netcheck.iptables_ruleset import iptables_chains
from overlay.core.netcheck.packet_filter import Packet
from overlay.model import ip_text

_LISTED: Final = {False: "ip_tables_names", True: "ip6_tables_names"}
_JUDGING_TABLES: Final = frozenset({"raw", "mangle", "filter", "security"})
_PATH: Final = "/usr/sbin:/sbin:/usr/bin:/bin"
_TIMEOUT_S: Final = 3.0
_SIZES: Final = (150, 1500)  # bytes of a packet, small and large


def judging_legacy_rule(*directions: VxlanTraffic) -> str:
    """Return where packets may be dropped or changed; empty if nowhere.

    A table whose rules can't be shown, or are too many, may do it.
    """
    is_ipv6 = len(directions[0].own) == 16
    tables = _judging_tables(is_ipv6=is_ipv6)
    if not tables:
        return ""
    program = "ip6tables-legacy" if is_ipv6 else "iptables-legacy"
    saved = _saved(f"{program}-save")
    unread = f"{program} table {min(tables)}"
    if saved is None:
        return unread
    packets = list(itertools.islice(_packets(directions), limits.FIREWALL_RULES_MAX + 1))
    if len(packets) * saved.count("\n-A ") > limits.FIREWALL_RULES_MAX:
        return unread
    hooks = {True: directions[0].hooks, False: directions[-1].hooks}
    try:
        found = (
            judging_rule(iptables_chains(saved, program, packet), hooks[packet.incoming])
            for packet in packets
        )
        return next(filter(None, found), "")
    except ValueError:  # a line that is no rule
        return unread


def _packets(directions: tuple[VxlanTraffic, ...]) -> Iterator[Packet]:
    for each in directions:
        for source, target, (_, interface), size in itertools.product(
            sorted(each.sources), sorted(each.targets), sorted(each.interfaces), _SIZES
        ):
            ends = ip_text(source), ip_text(target)
            yield Packet(each.incoming, *ends, interface, each.port, size)


def _judging_tables(*, is_ipv6: bool) -> frozenset[str]:
    try:
        listed = Path("/proc/thread-self/net", _LISTED[is_ipv6]).read_text(encoding="ascii")
    except OSError:
        return frozenset()
    return _JUDGING_TABLES & set(listed.split())


def _saved(program: str) -> str | None:
    """Return what a program prints; None if it is missing or fails."""
    found = shutil.which(program, path=_PATH)
    if found is None:
        return None
    try:
        done = subprocess.run(
            [found], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired, UnicodeDecodeError):
        return None
    return done.stdout if done.returncode == 0 else None
