"""A picture of a cluster for a terminal: a tree of hosts and containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.client.graph.model import Graph, GraphHost


def draw(graph: Graph) -> str:
    """Return the picture."""
    paths = {path.peer: path.label for path in graph.paths}
    lines: list[str] = []
    for host in graph.hosts:
        told = "this host" if host.is_here else f"path from {graph.here or 'here'}: "
        told += "" if host.is_here else paths.get(host.name, "unknown")
        lines.append(f"{host.name}  {host.address}  {host.state}  ({told})")
        lines += _containers(host)
    if graph.elsewhere:
        lines.append(f"not known here: the containers of {', '.join(graph.elsewhere)}")
    return "\n".join(lines)


def _containers(host: GraphHost) -> Iterator[str]:
    networks = sorted({each.network for each in host.containers})
    for number, network in enumerate(networks):
        is_last = number == len(networks) - 1
        yield f"{'`' if is_last else '|'}-- {network}"
        inside = [each for each in host.containers if each.network == network]
        stem = "    " if is_last else "|   "
        for at, each in enumerate(inside, 1):
            branch = "`" if at == len(inside) else "|"
            yield f"{stem}{branch}-- {each.name}  {' '.join(each.addresses)}"
