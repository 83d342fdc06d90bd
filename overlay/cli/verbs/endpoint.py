"""Commands `attach`, `detach`, `endpoint ls` and `endpoint set`.

Owns: their options and output. Does not: know the kinds of TARGET; the agent resolves it.
"""

from __future__ import annotations

import json

from overlay.cli import output
from overlay.cli.options import rates
from overlay.cli.options.common import (
    add_attach_options,
    add_network_option,
    attach_fields,
    pairs,
)
from overlay.cli.options.filters import add_filter_option, filter_rows
from overlay.cli.options.lists import add_list_options, print_rows
from overlay.cli.start_wait import TIMEOUT_S, wait_for_start
from overlay.client.api import ApiClient, JsonObject
from overlay.errors import UsageError
from overlay.strict_arguments import Metavar
from overlay.target_kinds import FORMS_TEXT, table_text

TYPE_CHECKING = False  # typing itself takes a tenth of a command's time to import
if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

FILTERS = {"name": "name", "network": "network", "node": "node"}
_WIDE = ("RATE IN", "RATE OUT", "STORM", "NON-IP", "PRIORITY", "DROPPED", "ID", "ALIASES", "LABELS")
UNATTACHED = Metavar("TARGET", kind="unattached")
TARGET_HELP = f"{FORMS_TEXT}, a path, or a name"
ATTACH_DESCRIPTION = f"""\
Connect a running container to networks.  stdout: its address on each, one per line.
When the command returns, every live node can reach the container; nodes that have not confirmed
are named on stderr.  Attaching again returns the same address.  Rates, --storm,
--allow-non-ip, --priority and --gateway-priority are changed in place; 'overlayd endpoint set'
changes name, aliases and labels; to change address or MAC, detach first.

TARGET is one of
{table_text()}

  sudo overlayd attach web --network blue
  sudo overlayd attach pid:4242 --network blue --ip 10.32.0.50
  sudo overlayd attach web --network blue --rate 10mbit --publish 8080:80
  sudo overlayd attach docker:web --network blue --wait    (it need not run, or exist, yet)
"""
SET_DESCRIPTION = """\
Change the name, aliases and labels of an attached container in place: its address and its
connections stay.  What is not named stays as it is.  Run it on the container's host.

  sudo overlayd endpoint set web --add-alias shop --remove-alias www
  sudo overlayd endpoint set web --network blue --name web2 --add-label team=a
"""


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    attach = words.verb("attach", run_attach, "connect a container to networks", ATTACH_DESCRIPTION)
    attach.add_argument("target", metavar=UNATTACHED, help=TARGET_HELP)
    add_network_option(attach, required=True)
    add_attach_options(attach, may_start_later=True)
    attach.add_argument("--name", help="DNS name on the networks (default: the container's)")
    detach = words.verb("detach", run_detach, "disconnect a container from networks")
    detach.add_argument("target", metavar="TARGET", help=TARGET_HELP)
    detach.add_argument(
        "--network",
        dest="networks",
        action="append",
        default=[],
        metavar="NETWORK",
        help="network to detach from; may be repeated (default: all)",
    )
    endpoints = words.group("endpoint", "list endpoints, and change their names and labels")
    listed = endpoints.verb("ls", run_ls, "list the endpoints of all hosts", watch=True)
    listed.add_argument("--network", metavar="NETWORK", help="this network only")
    add_filter_option(listed, FILTERS)
    add_list_options(listed)
    listed.add_argument(
        "--all", action="store_true", help="also what a BGP EVPN fabric has on exported networks"
    )
    listed.add_argument(
        "--wide",
        action="store_true",
        help="also show limits, what ports dropped, id, aliases, labels",
    )
    _register_set(endpoints)


def _register_set(endpoints: VerbGroup) -> None:
    changed = endpoints.verb(
        "set", run_set, "change a container's name, aliases and labels", SET_DESCRIPTION
    )
    changed.add_argument("target", metavar="TARGET", help=TARGET_HELP)
    changed.add_argument("--name", help="DNS name from now on")
    for option, is_shared, summary in (
        ("--shared-name", True, "let other containers with this option have its name"),
        ("--no-shared-name", False, "let no other container have its name"),
    ):
        changed.add_argument(
            option, dest="shared_name", action="store_const", const=is_shared, help=summary
        )
    for option, dest, metavar, summary in (
        ("--network", "networks", "NETWORK", "on this network only (default: all)"),
        ("--add-alias", "add_aliases", "NAME", "additional DNS name"),
        ("--remove-alias", "remove_aliases", "NAME", "alias to remove"),
        ("--add-label", "add_labels", "KEY=VALUE", "label to add or replace"),
        ("--remove-label", "remove_labels", "KEY", "label to remove"),
    ):
        changed.add_argument(
            option,
            dest=dest,
            action="append",
            default=[],
            metavar=metavar,
            help=f"{summary}; may be repeated",
        )


def run_set(args: Namespace) -> int:
    """Change a container's endpoints."""
    body: JsonObject = {
        "target": args.target,
        "networks": list(dict.fromkeys(args.networks)),
        "name": args.name,
        "add_aliases": args.add_aliases,
        "remove_aliases": args.remove_aliases,
        "add_labels": pairs(args.add_labels, "add_labels"),
        "remove_labels": args.remove_labels,
        **({} if args.shared_name is None else {"shared_name": args.shared_name}),
    }
    changes = {name: value for name, value in body.items() if name not in ("target", "networks")}
    if all(value in (None, [], {}) for value in changes.values()):
        raise UsageError(
            "nothing to change was given", hint="overlayd endpoint set --help lists the options"
        )
    done = ApiClient(args.paths).post("/v1/endpoints/set", body)
    if args.json:
        output.print_json(done)
        return 0
    for endpoint in done["endpoints"]:
        changed = ", ".join(_changed(each) for each in endpoint["changed"])
        where = f"{endpoint['name']} on {endpoint['network']}"
        output.print_note(f"{where}: {changed or 'nothing to change'}")
    return 0


def run_attach(args: Namespace) -> int:
    """Attach a container, with `--wait` at its start."""
    target = args.target
    if args.wait == "start":
        fields = attach_fields(args)  # wrong options are refused before the wait
        timeout_s = TIMEOUT_S if args.timeout is None else args.timeout
        args.paths.timeout_s = None  # that one bounds the wait instead
        target = wait_for_start(args.paths, target, fields["networks"], timeout_s)
    return attach_and_report(args, "/v1/endpoints", {"target": target, "name": args.name})


def attach_and_report(args: Namespace, path: str, body: JsonObject) -> int:
    """Send `body` with the options of an attach, and print the result."""
    attached = ApiClient(args.paths).post(path, {**body, **attach_fields(args)})
    if not args.json:
        _print_addresses(attached["endpoints"])
    _warn_unconfirmed(attached.get("unconfirmed") or [])
    _warn_unreachable(attached.get("unreachable") or [])
    _warn_unanswered(attached.get("unanswered") or [])
    for text in attached.get("degraded") or []:
        output.warn(f"degraded network {text}", "'overlayd verify' lists every difference")
    if args.json:
        output.print_json(attached)
    elif attached.get("created") and not args.networks:  # a bare container
        output.print_note(
            f"{attached['name']} is on no network yet: "
            f"sudo overlayd attach {attached['name']} --network NETWORK"
        )
    elif attached.get("published"):
        name = attached["endpoints"][0]["name"]
        output.print_note(f"published {' '.join(attached['published'])} for {name}")
    return 0


def _print_addresses(endpoints: list[JsonObject]) -> None:
    """Print each endpoint's primary address; note on stderr which were attached before."""
    for endpoint in endpoints:
        output.print_result(endpoint["ip"])
        if endpoint.get("ipv6_disabled"):
            output.print_note(
                f"{endpoint['name']} has no IPv6 address on {endpoint['network']}: IPv6 is disabled"
                " in the container (net.ipv6.conf.default.disable_ipv6); --ip ADDRESS enables it"
            )
        if not endpoint["created"]:
            changed = ", ".join(_changed(each) for each in endpoint.get("changed") or [])
            output.print_note(
                f"{endpoint['name']} was already attached to {endpoint['network']},"
                f" as {endpoint['ifname']}" + (f"; changed: {changed}" if changed else "")
            )


def _changed(change: JsonObject) -> str:
    """Return `rate in none -> 10mbit`."""
    is_rate = change["field"].startswith("rate_")
    texts = [
        (rates.rate_text(value) if value else rates.UNLIMITED)
        if is_rate
        else (value or "none" if isinstance(value, str | None) else json.dumps(value))
        for value in (change["before"], change["after"])
    ]
    return f"{change['field'].replace('_', ' ')} {' -> '.join(texts)}"


def _warn_unconfirmed(nodes: list[str]) -> None:
    """Warn about nodes that have not confirmed that they can reach the endpoints."""
    if nodes:
        output.warn(
            f"not yet confirmed by {', '.join(nodes)}",
            "They receive it by gossip once they are reachable; see: overlayd members",
        )


def _warn_unreachable(nodes: list[str]) -> None:
    """Warn about nodes whose gossip works while VXLAN between the hosts does not."""
    if nodes:
        output.warn(
            f"the data path to {', '.join(nodes)} loses frames, although the agents reach each "
            "other: containers there are not reachable from this host, or by small packets only",
            "overlayd status says which direction or size; allow the VXLAN port (UDP 4789 by "
            "default) between the hosts",
        )


def _warn_unanswered(nodes: list[str]) -> None:
    """Warn about nodes of which it is not known yet whether VXLAN between the hosts works."""
    if nodes:
        output.warn(
            f"the data path to {', '.join(nodes)} has not answered yet",
            "In a few seconds, overlayd status says whether it loses frames",
        )


def run_detach(args: Namespace) -> int:
    """Detach a container; it is not an error if it is not attached."""
    body: JsonObject = {"target": args.target, "networks": list(dict.fromkeys(args.networks))}
    done = ApiClient(args.paths).post("/v1/detach", body)
    if args.json:
        output.print_json(done)
        return 0
    for endpoint in done["detached"]:
        output.print_note(
            f"detached {endpoint['name']} from {endpoint['network']} ({endpoint['ip']})"
        )
    if done["not_attached"]:
        output.print_note(f"{args.target} was not attached to {', '.join(done['not_attached'])}")
    elif not done["detached"]:
        output.print_note(f"{args.target} was not attached; nothing to do")
    return 0


def run_ls(args: Namespace) -> int:
    """List the endpoints."""
    listed = ApiClient(args.paths).get("/v1/endpoints", network=args.network)
    listed["endpoints"] = filter_rows(listed["endpoints"], args.filters, FILTERS)
    if args.all:
        fabric = ApiClient(args.paths).get("/v1/evpn/endpoints", network=args.network)
        listed["outside"] = fabric["endpoints"]
    if print_rows(args, listed, "endpoints"):
        return 0
    if names := ", ".join(listed.get("elsewhere") or []):
        output.print_note(f"not listed: those of {names}, whose records this host does not hold")
    outside = listed.get("outside") or []
    if not listed["endpoints"] and not outside and args.filters:
        output.print_note("no endpoint matches the filter")
        return 0
    if not listed["endpoints"] and not outside:
        output.print_note("no endpoints; to add one: overlayd attach TARGET --network NETWORK")
        return 0
    headers = ["NAME", "NETWORK", "ADDRESS", "MAC", "NODE", "STATE", "TARGET", "IFNAME"]
    if args.wide:
        headers += _WIDE
    rows = []
    for endpoint in listed["endpoints"]:
        row = [
            endpoint["name"],
            endpoint["network"],
            endpoint["ips"],
            endpoint["mac"],
            endpoint["node"] + (" *" if endpoint.get("local") else ""),
            endpoint["node_state"],
            endpoint.get("target"),
            endpoint.get("ifname"),
        ]
        if args.wide:
            row += _wide_cells(endpoint)
        rows.append(row)
    rows += [_outside_row(each, len(headers)) for each in outside]
    output.print_result(output.table(headers, rows, show_header=not args.no_header))
    return 0


def _wide_cells(endpoint: JsonObject) -> list[object]:
    labels = endpoint.get("labels") or {}
    return [
        rates.rate_text(endpoint.get("rate_in")),
        rates.rate_text(endpoint.get("rate_out")),
        endpoint.get("storm"),
        endpoint.get("allow_non_ip"),
        endpoint.get("priority"),
        dropped_text(endpoint),
        endpoint["id"],
        endpoint.get("aliases"),
        [f"{key}={value}" for key, value in labels.items()],
    ]


def dropped_text(endpoint: JsonObject) -> list[str]:
    """Return what was dropped at an endpoint's port, by reason; none if it is elsewhere."""
    return [
        f"{reason}={count}" for reason, count in sorted((endpoint.get("dropped") or {}).items())
    ]


def _outside_row(shown: JsonObject, width: int) -> list[object]:
    """Return the row of what a fabric has: its node is the VTEP."""
    where = f"{shown['origin']} {shown['vtep']}"
    row = [None, shown["network"], shown["ips"], shown["mac"], where]
    return [*row, *[None] * (width - len(row))]
