"""Command `graph`: a picture of the cluster.

Owns: the forms of the picture. Does not: draw (`cli.graph`).
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.client.api import ApiClient

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

DESCRIPTION = """\
Draw the cluster as this host knows it: hosts, containers, networks, and the state of the paths
from this host to the others.

  overlayd graph
  overlayd graph --svg > cluster.svg
  overlayd graph --dot --network blue | dot -Tpng > blue.png
"""


def register(words: VerbGroup) -> None:
    """Add the verb of this module."""
    graph = words.verb("graph", run_graph, "draw hosts, containers and paths", DESCRIPTION)
    graph.add_argument("--network", metavar="NETWORK", help="of this network only")
    forms = graph.add_mutually_exclusive_group()
    forms.add_argument(
        "--text", dest="form", action="store_const", const="text", help="as a tree (default)"
    )
    forms.add_argument(
        "--mermaid", dest="form", action="store_const", const="mermaid", help="for Markdown"
    )
    forms.add_argument("--dot", dest="form", action="store_const", const="dot", help="for Graphviz")
    forms.add_argument("--svg", dest="form", action="store_const", const="svg", help="as a picture")


def run_graph(args: Namespace) -> int:
    """Draw the cluster."""
    from overlay.client.graph import model  # noqa: PLC0415  only this verb needs it

    client = ApiClient(args.paths)
    members = client.get("/v1/members")["members"]
    endpoints = client.get("/v1/endpoints", network=args.network)
    graph = model.read(members, endpoints, args.network or "")
    if args.json:
        output.print_json(
            {
                "schema": "overlayd.graph/v1",
                "hosts": [
                    host._asdict() | {"containers": [each._asdict() for each in host.containers]}
                    for host in graph.hosts
                ],
                "networks": list(graph.networks),
                "paths": [path._asdict() for path in graph.paths],
                "elsewhere": list(graph.elsewhere),
            }
        )
        return 0
    drawn = importlib.import_module(f"overlay.cli.graph.{args.form or 'text'}")
    output.print_result(drawn.draw(graph))
    return 0
