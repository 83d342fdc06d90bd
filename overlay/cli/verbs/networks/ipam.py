"""Command `ipam`.

Owns: its table. Does not: know how addresses move between hosts.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.client.api import ApiClient, JsonObject

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

DESCRIPTION = """\
Show which host owns which addresses, how many are free, and which are unavailable because their
owner is unreachable.  Every host owns a part of each network and allocates from it; before it runs
out, it requests more from another owner.

  overlayd ipam
  overlayd ipam blue --json
"""
HEADERS = ("NETWORK", "SUBNET", "OWNER", "STATE", "ADDRESSES", "USED", "FREE", "RANGES")


def register(words: VerbGroup) -> None:
    """Add the verb."""
    ipam = words.verb(
        "ipam", run_ipam, "show which host owns which addresses", DESCRIPTION, watch=True
    )
    ipam.add_argument("name", nargs="?", metavar="NETWORK", help="this network only")
    ipam.add_argument("--no-header", action="store_true", help="omit the header line")


def run_ipam(args: Namespace) -> int:
    """Show the owners of addresses."""
    shown = ApiClient(args.paths).get("/v1/ipam", network=args.name)
    if args.json:
        output.print_json(shown)
        return 0
    for name in shown["elsewhere"]:
        output.print_note(f"{name}: not known here, since this host does not hold its records")
    rows = [
        _row(network["network"], subnet["subnet"], owner)
        for network in shown["networks"]
        for subnet in network["subnets"]
        for owner in subnet["owners"]
    ]
    if rows:
        output.print_result(output.table(HEADERS, rows, show_header=not args.no_header))
    for network in shown["networks"]:
        for subnet in network["subnets"]:
            _warn_unreachable(network["network"], subnet)
    return 0


def _row(network: str, subnet: str, owner: JsonObject) -> tuple[object, ...]:
    ranges = list(owner["ranges"])
    if owner["ranges_more"]:
        ranges.append(f"and {owner['ranges_more']} more")
    state = owner["state"] if owner["inherited"] else "forgotten"
    counts = (owner["addresses"], owner["used"], owner["free"])
    return (network, subnet, owner["node"], state, *counts, ranges)


def _warn_unreachable(network: str, subnet: JsonObject) -> None:
    away = [owner["node"] for owner in subnet["owners"] if not owner["reachable"]]
    if away:
        output.warn(
            f"{network} {subnet['subnet']}: {subnet['unreachable']} of {subnet['free']} free "
            f"addresses are unavailable, since {', '.join(away)} cannot be reached"
        )
