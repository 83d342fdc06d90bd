"""Draw the lab as text: hosts, VTEPs, containers, and their ping times."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

_WIDTH = 28


class DiagramHost(NamedTuple):
    """One host and its container."""

    name: str
    address: str
    container: str
    container_ip: str


class DiagramPing(NamedTuple):
    """One ping by name between two hosts.

    The round-trip time is None without a reply.
    """

    source: str
    target: str
    rtt_ms: float | None


def draw(
    hosts: Sequence[DiagramHost],
    network: str,
    vni: int,
    pings: Sequence[DiagramPing],
    columns: int = 100,
) -> str:
    """Return the diagram: containers, VTEPs below, underlay at the bottom.

    Hosts that do not fit into a terminal of `columns` stand below the others.
    """
    per_row = max((columns + 2) // (_WIDTH + 2), 1)
    lines = []
    for start in range(0, len(hosts), per_row):
        lines += [*_row(hosts[start : start + per_row], network, vni), ""]
    lines[-1:] = ["    underlay 192.168.56.0/24, VXLAN on UDP 4789", ""]
    lines += [_ping_line(ping) for ping in pings]
    return "\n".join(lines)


def _row(hosts: Sequence[DiagramHost], network: str, vni: int) -> list[str]:
    """Return the hosts side by side, on the underlay."""
    rows = [
        ["+" + "-" * (_WIDTH - 2) + "+" for _ in hosts],
        [_cell(host.name) for host in hosts],
        [_cell(f"[{host.container}] {host.container_ip}") for host in hosts],
        [_cell("   | eth0") for _ in hosts],
        [_cell(f" [br0] {network}") for _ in hosts],
        [_cell("   |") for _ in hosts],
        [_cell(f" [vxlan0] vni {vni}") for _ in hosts],
        [_cell(f"   | {host.address}") for host in hosts],
        ["+---" + "|" + "-" * (_WIDTH - 6) + "+" for _ in hosts],
    ]
    ruler = list("=" * ((_WIDTH + 2) * len(hosts) - 2))
    for index in range(len(hosts)):
        ruler[index * (_WIDTH + 2) + 4] = "+"
    return [*("  ".join(row) for row in rows), "".join(ruler)]


def _cell(text: str) -> str:
    return "| " + text[: _WIDTH - 4].ljust(_WIDTH - 4) + " |"


def _ping_line(ping: DiagramPing) -> str:
    if ping.rtt_ms is None:
        return f"  {ping.source} --X--> {ping.target}   no reply"
    return f"  {ping.source} -----> {ping.target}   {ping.rtt_ms:.3f} ms"
