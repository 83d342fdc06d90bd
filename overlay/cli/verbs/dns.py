"""Verbs about names: dns add, lookup, ls, rm.

Owns: their options and tables. Must not know how a name is found.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.client.api import ApiClient, JsonObject, segment

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

LOOKUP_DESCRIPTION = """\
Look a name or an address up as a container would.  stdout: the addresses, or the names of an
address, one per line.  The names of networks that nothing on this host is attached to are not
known here.

  overlayd dns lookup web
  overlayd dns lookup web.blue.overlay --network blue
  overlayd dns lookup 10.32.0.2
"""
ADD_DESCRIPTION = """\
Give a name to addresses that are no container's: a router, a printer, a service outside.  Every
container of the network is told it, on all hosts, unless a container has that name itself.  The
same name given again on this host replaces what it was; several hosts may share one.

  overlayd dns add database 192.168.7.20 --network blue
  overlayd dns rm database --network blue
"""
HEADERS = ("NAME", "NETWORK", "ADDRESSES")


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    names = words.group("dns", "look names up as containers do, and give further ones")
    lookup = names.verb(
        "lookup",
        run_lookup,
        "look a name or an address up as a container would",
        LOOKUP_DESCRIPTION,
    )
    lookup.add_argument("name", metavar="NAME", help="or an address")
    lookup.add_argument("--network", metavar="NETWORK", help="as a container on this network alone")
    add = names.verb("add", run_add, "give a name to addresses", ADD_DESCRIPTION)
    add.add_argument("name", metavar="NAME", help="as containers ask for it")
    add.add_argument("ips", nargs="+", metavar="ADDRESS", help="what they are told")
    remove = names.verb("rm", run_rm, "take back a name that was given on this host")
    remove.add_argument("name", metavar="NAME", help="as it was given")
    for verb in (add, remove):
        verb.add_argument("--network", required=True, metavar="NETWORK", help="whose containers")
    listed = names.verb("ls", run_ls, "list the names that containers get an answer for")
    listed.add_argument("network", nargs="?", metavar="NETWORK", help="of this network only")
    listed.add_argument("--no-header", action="store_true", help="rows only")


def run_add(args: Namespace) -> int:
    """Give a name."""
    body: JsonObject = {"name": args.name, "ips": args.ips, "network": args.network}
    added = ApiClient(args.paths).post("/v1/dns", body)
    if args.json:
        output.print_json(added)
    else:
        output.print_note(f"{added['name']} is {', '.join(added['ips'])} on {added['network']}")
    _warn_hidden(added)
    return 0


def _warn_hidden(added: JsonObject) -> None:
    """Say so where containers are told something else: a container's own name goes before."""
    told = ", ".join(added["told"])
    if not set(added["ips"]) <= set(added["told"]):
        output.warn(
            f"containers are told {told}: a container on {added['network']} has that name",
            "Yours is told when that container is gone; or choose another name",
        )


def run_rm(args: Namespace) -> int:
    """Take a name back."""
    client = ApiClient(args.paths)
    removed = client.delete(f"/v1/dns/{segment(args.name)}", network=args.network)
    if args.json:
        output.print_json(removed)
    else:
        output.print_note(f"removed {args.name} from {args.network}")
    return 0


def run_lookup(args: Namespace) -> int:
    """Look one name or address up."""
    path = f"/v1/dns/{segment(args.name)}"
    found = ApiClient(args.paths).get(path, network=args.network)
    if args.json:
        output.print_json(found)
    else:
        output.print_result("\n".join([*found["ips"], *found["names"]]))
    return 0


def run_ls(args: Namespace) -> int:
    """List the names."""
    listed = ApiClient(args.paths).get("/v1/dns", network=args.network)
    if args.json:
        output.print_json(listed)
        return 0
    for name in listed["elsewhere"]:
        output.print_note(f"{name}: not known here, as nothing on this host is attached to it")
    rows = [(found["name"], found["network"], found["ips"]) for found in listed["names"]]
    if rows:
        output.print_result(output.table(HEADERS, rows, show_header=not args.no_header))
    return 0
