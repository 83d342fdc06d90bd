"""Commands `dns add`, `lookup`, `ls` and `rm`.

Owns: their options and output. Does not: know how a name is resolved.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.cli.options.lists import add_list_options, print_rows
from overlay.client.api import ApiClient, JsonObject, segment
from overlay.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

LOOKUP_DESCRIPTION = """\
Look up a name or an address as a container would.  stdout: the addresses, or the names of an
address, one per line.  Names of a network are known only on hosts with an endpoint on it.

  overlayd dns lookup web
  overlayd dns lookup web.blue.overlay --network blue
  overlayd dns lookup 10.32.0.2
"""
ADD_DESCRIPTION = """\
Add a custom DNS record: a name for addresses that are not a container's, such as a router or an
external service.  It is served to the network's containers on all hosts, unless a container has
that name.  Adding the name again on this host replaces the record; several hosts may share a name.
With --for CONTAINER it is part of that container's own record: it goes when the container is
detached or ends, or its host dies, and returns with it.  The address 'own' means the container's.

  overlayd dns add database 192.168.7.20 --network blue
  overlayd dns add shop 10.58.0.100 --for web --network blue
"""
HEADERS = ("NAME", "NETWORK", "ADDRESSES")
OWN = "own"


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    names = words.group("dns", "look up names as containers do, and manage custom records")
    lookup = names.verb(
        "lookup",
        run_lookup,
        "look up a name or an address as a container would",
        LOOKUP_DESCRIPTION,
    )
    lookup.add_argument("name", metavar="NAME", help="name or address")
    lookup.add_argument("--network", metavar="NETWORK", help="look it up on this network only")
    add = names.verb("add", run_add, "add a custom record: a name for addresses", ADD_DESCRIPTION)
    add.add_argument("name", metavar="NAME", help="name that containers look up")
    add.add_argument(
        "ips",
        nargs="+",
        metavar="ADDRESS",
        help=f"address that it resolves to, or {OWN}: those of the container of --for",
    )
    add.add_argument(
        "--for",
        dest="target",
        metavar="TARGET",
        help="container of this host that the record goes with",
    )
    remove = names.verb("rm", run_rm, "remove a custom record")
    remove.add_argument("name", metavar="NAME", help="name of the record")
    for verb in (add, remove):
        verb.add_argument(
            "--network", required=True, metavar="NETWORK", help="network of the record"
        )
    listed = names.verb("ls", run_ls, "list all names that resolve", watch=True)
    listed.add_argument("network", nargs="?", metavar="NETWORK", help="this network only")
    add_list_options(listed)


def run_add(args: Namespace) -> int:
    """Add a custom record."""
    if OWN in args.ips and (len(args.ips) > 1 or args.target is None):
        raise UsageError(
            f"the address {OWN} stands alone, and for those of a container",
            why="--for names no container" if args.target is None else "other addresses are given",
            hint=f"overlayd dns add {args.name} {OWN} --for CONTAINER --network {args.network}",
        )
    ips = [] if args.ips == [OWN] else args.ips
    body: JsonObject = {"name": args.name, "ips": ips, "network": args.network}
    body |= {} if args.target is None else {"target": args.target}
    added = ApiClient(args.paths).post("/v1/dns", body)
    if args.json:
        output.print_json(added)
    else:
        whose = "" if args.target is None else f", as long as {args.target} is"
        addresses = ", ".join(added["ips"])
        output.print_note(f"{added['name']} is {addresses} on {added['network']}{whose}")
    _warn_hidden(added)
    return 0


def _warn_hidden(added: JsonObject) -> None:
    """Warn if a container's name hides the new record."""
    served = ", ".join(added["told"])
    if not set(added["ips"]) <= set(added["told"]):
        output.warn(
            f"the name resolves to {served}: a container on {added['network']} has that name",
            "The record takes effect once that container is gone; or choose another name",
        )


def run_rm(args: Namespace) -> int:
    """Remove a custom record."""
    client = ApiClient(args.paths)
    removed = client.delete(f"/v1/dns/{segment(args.name)}", network=args.network)
    if args.json:
        output.print_json(removed)
    else:
        output.print_note(f"removed {args.name} from {args.network}")
    return 0


def run_lookup(args: Namespace) -> int:
    """Look up one name or address."""
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
    if print_rows(args, listed, "names"):
        return 0
    for name in listed["elsewhere"]:
        output.print_note(f"{name}: not known here, since this host does not hold its records")
    rows = [(found["name"], found["network"], found["ips"]) for found in listed["names"]]
    if rows:
        output.print_result(output.table(HEADERS, rows, show_header=not args.no_header))
    return 0
