"""Commands `members` and `forget`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.cli.options.lists import add_list_options, print_rows
from overlay.client.api import ApiClient, JsonObject
from overlay.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    members = words.verb("members", run_members, "list the members and their state", watch=True)
    add_list_options(members)
    members.add_argument(
        "--wide", action="store_true", help="also show id, incarnation, version and logs"
    )
    forget = words.verb(
        "forget",
        run_forget,
        "remove a dead node permanently",
        "Remove a dead node permanently: its addresses return to the nodes that granted them, its\n"
        "rows are removed, and its identity is banned.  To return as a new node, the host\n"
        "needs 'overlayd reset'.  A live node is refused, unless --ban excludes it.",
    )
    forget.add_argument("node", metavar="NODE", help="name or id")
    forget.add_argument(
        "--powered-off",
        action="store_true",
        help="confirm that it is off (required if most members are unreachable)",
    )
    forget.add_argument(
        "--ban",
        action="store_true",
        help="remove it although it is alive (only on a host that holds the authority)",
    )
    forget.add_argument(
        "--remove-networks",
        action="store_true",
        help="also remove the networks that it created and no other host uses",
    )
    forget.add_argument(
        "--force",
        action="store_true",
        help="remove it even as the last holder of the authority",
    )


def run_members(args: Namespace) -> int:
    """List the members."""
    listed = ApiClient(args.paths).look("/v1/members")
    if print_rows(args, listed, "members"):
        return 0
    headers = ["NODE", "ADDRESS", "STATE", "SINCE", "RTT", "DATA", "BEHIND", "AUTHORITY"]
    if args.wide:
        headers += ["ID", "INCARNATION", "VERSION", "LOGS"]
    rows = []
    counts = Counter(member["name"] for member in listed["members"])
    for member in listed["members"]:
        rtt = member.get("rtt_ms")
        # A host that has joined anew is there twice: only the id tells which one to forget.
        name = member["name"] + (f" ({member['id']})" if counts[member["name"]] > 1 else "")
        row = [
            name + (" *" if member.get("self") else ""),
            member["address"],
            member["state"],
            output.duration(member["since_s"]),
            None if rtt is None else f"{rtt:.1f} ms",
            _data_path(member.get("path")),
            member.get("logs", {}).get("behind"),
            "holder" if member.get("authority") else None,
        ]
        if args.wide:
            row += [member["id"], member["incarnation"], member["version"], _logs(member)]
        rows.append(row)
    output.print_result(output.table(headers, rows, show_header=not args.no_header))
    return 0


def _data_path(path: JsonObject | None) -> str | None:
    """Return what probes say of the path to a member: `ok`, `lost`, `to: lost`, `1400 bytes`."""
    if path is None:
        return None
    sending, receiving = str(path["sending"]), str(path["receiving"])
    if sending == receiving and sending != "ok":
        return sending
    both = (f"to: {sending}", f"from: {receiving}")
    not_ok = [text for text in both if not text.endswith(": ok")]
    if not_ok:
        return ", ".join(not_ok)
    carried = path["size_carried"]
    if carried is not None and carried < path["size_expected"]:
        return f"{carried} bytes"
    return "ok"


def _logs(member: JsonObject) -> str:
    """Return how many entries of each of a member's logs this host holds: `blue 12/14`."""
    return ", ".join(
        f"{log['scope']} {log['held']}/{log['origin']}"
        for log in member.get("logs", {}).get("versions", ())
    )


def run_forget(args: Namespace) -> int:
    """Forget a node."""
    if not args.node.strip():
        raise UsageError("NODE must not be empty", hint="overlayd members")
    body: JsonObject = {
        "node": args.node,
        "powered_off": args.powered_off,
        "ban": args.ban,
        "remove_networks": args.remove_networks,
        "force": args.force,
    }
    done = ApiClient(args.paths).post("/v1/forget", body)
    if args.json:
        output.print_json(done)
    else:
        output.print_note(f"{args.node} forgotten; if it comes back, it must join as a new node")
        removed, left = done["networks_removed"], done["networks_left"]
        if removed:
            output.print_note(f"removed {output.count_text(removed, 'network')} that it created")
        if left and args.remove_networks:
            verb = "stays" if left == 1 else "stay"
            output.print_note(f"{output.count_text(left, 'network')} that it created {verb} in use")
        elif left:
            output.print_note(
                f"it has created {output.count_text(left, 'network')}; to remove those that no "
                f"host uses: sudo overlayd forget {args.node} --remove-networks"
            )
    return 0
