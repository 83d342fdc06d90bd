"""A picture of a cluster for Graphviz (https://graphviz.org/doc/info/lang.html)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.client.graph.colors import by_network

if TYPE_CHECKING:
    from overlay.client.graph.model import Graph


def draw(graph: Graph) -> str:
    """Return the picture, for `dot -Tsvg`."""
    colors = by_network(graph.networks)
    lines = ["graph overlayd {", "  compound=true; node [shape=box, style=rounded];"]
    for host in graph.hosts:
        lines.append(f"  subgraph {_quoted(f'cluster_{host.name}')} {{")
        lines.append(f"    label={_quoted(f'{host.name} {host.address} {host.state}')};")
        lines.append(f"    {_quoted(host.name)} [shape=point];")
        for each in host.containers:
            name = _quoted(f"{host.name}/{each.network}/{each.name}")
            label = _quoted(f"{each.label}\n{each.network}")
            lines.append(f"    {name} [label={label}, color={_quoted(colors[each.network])}];")
        lines.append("  }")
    for path in graph.paths:
        style = "" if path.state == "ok" else ", style=dashed"
        ends = f"{_quoted(graph.here)} -- {_quoted(path.peer)}"
        lines.append(f"  {ends} [label={_quoted(path.label)}{style}];")
    return "\n".join([*lines, "}"])


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
