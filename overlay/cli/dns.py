"""Verbs about names: dns lookup, ls.

Owns: their options and tables. Must not know how a name is found.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.cli.client import Client, segment
from overlay.cli.places import places

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import Words

LOOKUP_DESCRIPTION = """\
Look a name or an address up as a container would.  stdout: the addresses, or the names of an
address, one per line.  The names of networks that nothing on this host is attached to are not
known here.

  overlayd dns lookup web
  overlayd dns lookup web.blue.overlay --network blue
  overlayd dns lookup 10.32.0.2
"""
HEADERS = ("NAME", "NETWORK", "ADDRESSES")


def register(words: Words) -> None:
    """Add the verbs of this module."""
    names = words.group("dns", "look names up as containers do")
    lookup = names.verb(
        "lookup",
        run_lookup,
        "look a name or an address up as a container would",
        LOOKUP_DESCRIPTION,
    )
    lookup.add_argument("name", metavar="NAME")
    lookup.add_argument("--network", metavar="NETWORK", help="as a container on this network alone")
    listed = names.verb("ls", run_ls, "list the names that containers get an answer for")
    listed.add_argument("network", nargs="?", metavar="NETWORK", help="of this network only")
    listed.add_argument("--no-header", action="store_true", help="rows only")


def run_lookup(args: Namespace) -> int:
    """Look one name or address up."""
    path = f"/v1/dns/{segment(args.name)}"
    found = Client(places(args, os.environ)).get(path, network=args.network)
    if args.json:
        output.answer_json(found)
    else:
        output.answer("\n".join([*found["ips"], *found["names"]]))
    return 0


def run_ls(args: Namespace) -> int:
    """List the names."""
    listed = Client(places(args, os.environ)).get("/v1/dns", network=args.network)
    if args.json:
        output.answer_json(listed)
        return 0
    for name in listed["elsewhere"]:
        output.comment(f"{name}: not known here, as nothing on this host is attached to it")
    rows = [(found["name"], found["network"], found["ips"]) for found in listed["names"]]
    if rows:
        output.answer(output.table(HEADERS, rows, show_header=not args.no_header))
    return 0
