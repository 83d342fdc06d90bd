"""A picture of a cluster as SVG: hosts on a line that is the underlay, containers above it."""

from __future__ import annotations

import html
from typing import TYPE_CHECKING

from overlay.client.graph.colors import by_network

if TYPE_CHECKING:
    from collections.abc import Mapping

    from overlay.client.graph.model import Graph, GraphHost, GraphPath

_WIDTH, _GAP, _LINE, _MARGIN = 220, 24, 24, 16  # pixels
_PER_ROW_MAX = 6
_STYLE = (
    "text{font:13px sans-serif;fill:#222}.host{fill:#fff;stroke:#666}.here{stroke-width:3}"
    ".dead{stroke-dasharray:6 4}.underlay{stroke:#666;stroke-width:4}.bad{fill:#b00020}"
    "@media (prefers-color-scheme:dark){text{fill:#ddd}.host{fill:#1e1e1e;stroke:#999}"
    ".bad{fill:#ff8a80}}"
)


def draw(graph: Graph) -> str:
    """Return the picture."""
    colors = by_network(graph.networks)
    paths = {path.peer: path for path in graph.paths}
    rows = [
        graph.hosts[start : start + _PER_ROW_MAX]
        for start in range(0, len(graph.hosts), _PER_ROW_MAX)
    ]
    body: list[str] = []
    top = _MARGIN
    for row in rows:
        height = (max(len(host.containers) for host in row) + 2) * _LINE
        for number, host in enumerate(row):
            left = _MARGIN + number * (_WIDTH + _GAP)
            body += _host(host, left, top, height, colors, paths.get(host.name))
        line = top + height + 2 * _LINE
        right = _MARGIN + len(row) * (_WIDTH + _GAP) - _GAP
        body.append(f'<path class="underlay" d="M{_MARGIN} {line}H{right}"/>')
        top = line + _GAP
    body += _legend(colors, top)
    width = 2 * _MARGIN + min(max(len(graph.hosts), 1), _PER_ROW_MAX) * (_WIDTH + _GAP) - _GAP
    height = top + (len(colors) + 1) * _LINE
    title = (
        f"{len(graph.hosts)} hosts, {sum(len(host.containers) for host in graph.hosts)} containers"
    )
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" role="img">',
            f"<title>{title}</title><style>{_STYLE}</style>",
            *body,
            "</svg>",
        ]
    )


def _host(
    host: GraphHost,
    left: int,
    top: int,
    height: int,
    colors: Mapping[str, str],
    path: GraphPath | None,
) -> list[str]:
    kind = "host" + (" here" if host.is_here else "") + ("" if host.state == "alive" else " dead")
    middle, bottom = left + _WIDTH // 2, top + height
    parts = [
        f'<rect class="{kind}" x="{left}" y="{top}" width="{_WIDTH}" height="{height}" rx="6"/>',
        _text(left + 10, top + 18, f"{host.name}  {host.address}", "font-weight:bold"),
        f'<path class="underlay" d="M{middle} {bottom}V{bottom + 2 * _LINE}"/>',
    ]
    for number, each in enumerate(host.containers, 1):
        y = top + number * _LINE + 18
        color = colors[each.network]
        parts.append(f'<circle cx="{left + 18}" cy="{y - 5}" r="6" fill="{color}"/>')
        parts.append(_text(left + 32, y, each.label))
    told = "this host" if host.is_here else (path.label if path else "")
    style = "" if path is None or path.state == "ok" else "bad"
    parts.append(_text(middle + 8, bottom + _LINE + 4, told, kind=style))
    return parts


def _legend(colors: Mapping[str, str], top: int) -> list[str]:
    parts = []
    for number, (name, color) in enumerate(colors.items()):
        y = top + number * _LINE + 12
        parts.append(f'<circle cx="{_MARGIN + 8}" cy="{y - 5}" r="6" fill="{color}"/>')
        parts.append(_text(_MARGIN + 22, y, f"network {name}"))
    return parts


def _text(x: int, y: int, text: str, style: str = "", kind: str = "") -> str:
    marks = (f' style="{style}"' if style else "") + (f' class="{kind}"' if kind else "")
    return f'<text x="{x}" y="{y}"{marks}>{html.escape(text)}</text>'
