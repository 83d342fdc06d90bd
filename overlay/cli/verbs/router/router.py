"""Commands `router create`, `ls`, `inspect`, `set` and `rm`.

Owns: their options and output. Does not: know which networks can be connected; the agent does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.cli.options.common import add_label_option, pairs
from overlay.cli.options.filters import add_filter_option, filter_rows
from overlay.cli.options.lists import (
    add_format_option,
    add_list_options,
    print_one,
    print_rows,
)
from overlay.cli.options.removal import remove_all
from overlay.client.api import ApiClient, JsonObject, segment
from overlay.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

NONE = "none"
FILTERS = {"name": "name"}
CREATE_DESCRIPTION = """\
Connect networks: their containers reach each other through their gateways, on every host, by IPv4
and IPv6.  Policies of both networks apply; from another network they select by network:NAME or
cidr:RANGE.  Internal networks stay closed to the world.

A host with a container on one of the networks joins all of them, and routes what its containers
send: no host is a gateway for others.  Networks with overlapping subnets cannot be connected.
Creating the same router again changes nothing.

  sudo overlayd router create r1 --network blue --network red
  sudo overlayd router create r2 --network secret --network red --allow-clear
"""
SET_DESCRIPTION = """\
Add networks to a router, or remove some.  Packets between the networks that stay are not disturbed.

  sudo overlayd router set r1 --add green
  sudo overlayd router set r1 --remove green
"""
LS_HEADERS = ("NAME", "NETWORKS", "ALLOW CLEAR")
MEMBER_HEADERS = ("NETWORK", "SUBNETS", "REACHES", "HOSTS")
CLEAR = "packets of encrypted networks may cross hosts in clear, in a network that is not encrypted"


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    routers = words.group("router", "connect networks with each other")
    create = routers.verb("create", run_create, "connect networks", CREATE_DESCRIPTION)
    create.add_argument("name", metavar="NAME", help="name of the router, unique in the cluster")
    create.add_argument(
        "--network",
        dest="networks",
        action="append",
        required=True,
        metavar="NETWORK",
        help="network that it connects; give two or more",
    )
    create.add_argument("--allow-clear", action="store_true", help=CLEAR)
    add_label_option(create)
    listed = routers.verb("ls", run_ls, "list the routers", watch=True)
    add_filter_option(listed, FILTERS)
    add_list_options(listed)
    inspect = routers.verb("inspect", run_inspect, "show one router, and what it connects now")
    inspect.add_argument("name", metavar="ROUTER")
    add_format_option(inspect)
    changed = routers.verb("set", run_set, "add networks to a router, or remove", SET_DESCRIPTION)
    changed.add_argument("name", metavar="ROUTER")
    for option, summary in (("--add", "network to connect"), ("--remove", "network to leave out")):
        changed.add_argument(
            option,
            action="append",
            default=[],
            metavar="NETWORK",
            help=f"{summary}; repeatable",
        )
    changed.add_argument("--allow-clear", choices=("on", "off"), help=CLEAR)
    add_label_option(changed)
    remove = routers.verb("rm", run_rm, "remove routers; their networks stay")
    remove.add_argument("names", nargs="+", metavar="ROUTER")


def run_create(args: Namespace) -> int:
    """Create a router."""
    body: JsonObject = {
        "name": args.name,
        "networks": args.networks,
        "allow_clear": args.allow_clear,
    }
    if args.labels:
        body["labels"] = pairs(args.labels, "labels")
    made = ApiClient(args.paths).post("/v1/routers", body)
    if args.json:
        output.print_json(made)
        return 0
    output.print_result(sentence(made))
    if not made["created"]:
        output.print_note(f"router {made['name']} existed already")
    return 0


def run_set(args: Namespace) -> int:
    """Change a router."""
    body: JsonObject = {name: value for name in ("add", "remove") if (value := getattr(args, name))}
    if args.allow_clear is not None:
        body["allow_clear"] = args.allow_clear == "on"
    if args.labels:
        body["labels"] = {} if args.labels == [NONE] else pairs(args.labels, "labels")
    if not body:
        raise UsageError(
            "nothing to change was given",
            hint="Such as --add green; see: overlayd router set -h",
        )
    done = ApiClient(args.paths).post(f"/v1/routers/{segment(args.name)}", body)
    if args.json:
        output.print_json(done)
        return 0
    output.print_result(sentence(done))
    if not done["changed"]:
        output.print_note("no change")
    return 0


def sentence(router: JsonObject) -> str:
    """Return what a router connects, such as `r1  connects blue red`."""
    clear = ", in clear where one is not encrypted" if router["allow_clear"] else ""
    return f"{router['name']}  connects {' '.join(router['networks'])}{clear}"


def run_ls(args: Namespace) -> int:
    """List the routers."""
    listed = ApiClient(args.paths).get("/v1/routers")
    listed["routers"] = filter_rows(listed["routers"], args.filters, FILTERS)
    if print_rows(args, listed, "routers"):
        return 0
    if not listed["routers"]:
        output.print_note(
            "no router matches the filter"
            if args.filters
            else "no routers; to connect two networks: overlayd router create NAME --network "
            "NETWORK --network NETWORK"
        )
        return 0
    rows = [
        (each["name"], each["networks"], "yes" if each["allow_clear"] else output.ABSENT)
        for each in listed["routers"]
    ]
    output.print_result(output.table(LS_HEADERS, rows, show_header=not args.no_header))
    return 0


def run_inspect(args: Namespace) -> int:
    """Show one router."""
    shown = ApiClient(args.paths).get(f"/v1/routers/{segment(args.name)}")
    if print_one(args, shown, inspect_text):
        for note in shown["notes"]:
            output.print_note(f"{shown['name']}: {note}")
    return 0


def inspect_text(router: JsonObject) -> str:
    """Return the details of one router, for people."""
    labels = " ".join(f"{key}={value}" for key, value in router["labels"].items())
    text = output.key_value_lines(
        [
            ("Router", router["name"]),
            ("Allow clear", "yes" if router["allow_clear"] else "no"),
            ("Labels", labels or output.ABSENT),
        ]
    )
    rows = [
        (
            f"{each['name']} (encrypted)" if each["encrypted"] else each["name"],
            each["subnets"],
            each["reaches"] or output.ABSENT,
            each["hosts"] or output.ABSENT,
        )
        for each in router["members"]
    ]
    return f"{text}\n\n{output.table(MEMBER_HEADERS, rows)}"


def run_rm(args: Namespace) -> int:
    """Remove routers, one by one."""
    return remove_all(args, "/v1/routers", "overlayd.router-rm/v1", args.names)
