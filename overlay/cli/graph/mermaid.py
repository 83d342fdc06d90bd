"""A picture of a cluster as Mermaid (https://mermaid.js.org/syntax/flowchart.html)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.client.graph.colors import by_network

if TYPE_CHECKING:
    from overlay.client.graph.model import Graph


def draw(graph: Graph) -> str:
    """Return the picture."""
    ids = {host.name: f"h{number}" for number, host in enumerate(graph.hosts)}
    classes = {name: f"n{number}" for number, name in enumerate(graph.networks)}
    lines = ["flowchart LR"]
    for host in graph.hosts:
        lines.append(f'  subgraph {ids[host.name]}["{_text(f"{host.name} {host.address}")}"]')
        for number, each in enumerate(host.containers):
            label = _text(f"{each.label}<br>{each.network}")
            lines.append(f'    {ids[host.name]}c{number}["{label}"]:::{classes[each.network]}')
        if not host.containers:
            lines.append(f"    {ids[host.name]}c[ ]")
        lines.append("  end")
    lines += [
        f'  {ids[graph.here]} {_line(path.state)}|"{_text(path.label)}"| {ids[path.peer]}'
        for path in graph.paths
        if graph.here
    ]
    lines += [
        f"  classDef {classes[name]} stroke:{color},stroke-width:3px"
        for name, color in by_network(graph.networks).items()
    ]
    return "\n".join(lines)


def _line(state: str) -> str:
    return "---" if state == "ok" else "-.-"


def _text(text: str) -> str:
    return text.replace('"', "#quot;")
