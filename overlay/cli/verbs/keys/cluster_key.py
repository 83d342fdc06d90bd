"""Commands `key rotate` and `key status`.

Owns: their options and output. No key is ever shown.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.client.api import ApiClient, JsonObject

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

ROTATE_DESCRIPTION = """\
Replace the key that seals all members' datagrams.  Works on a host that holds the authority.

The new key is sent to all live members, then used, then the old key is removed.  Each step waits
until all have confirmed the previous one, so no datagram is lost.  Rotation is automatic, once a
day (key_rotation_interval_s in the configuration; 0 disables it).  A member that is away receives
the key when it returns.  The command returns once all members use the new key; the old key is
removed ten seconds later.
"""
STATUS_DESCRIPTION = """\
Show which generation of the key each member holds and uses, and the datagrams received with each.

A rotation names the member that it waits for: start that member, or forget it if it is gone
permanently.
"""


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    key = words.group("key", "rotate the key that seals datagrams, and show its use")
    key.verb("rotate", run_rotate, "replace the key on all members (root only)", ROTATE_DESCRIPTION)
    status = key.verb(
        "status",
        run_status,
        "show its generation on each member (root only)",
        STATUS_DESCRIPTION,
        watch=True,
    )
    status.add_argument("--no-header", action="store_true", help="omit summary and header line")


def run_rotate(args: Namespace) -> int:
    """Rotate the cluster's key."""
    done = ApiClient(args.paths).post("/v1/keys/rotate")
    if args.json:
        output.print_json(done)
    else:
        output.print_note(f"generation {done['generation']} is in use by all members")
    return 0


def run_status(args: Namespace) -> int:
    """Show the key's generation on each member."""
    shown = ApiClient(args.paths).get("/v1/keys")
    if args.json:
        output.print_json(shown)
        return 0
    if not args.no_header:
        output.print_result(output.key_value_lines(_head(shown)))
        output.print_result("")
    headers = ["NODE", "STATE", "HOLDS", "USES"]
    rows = [
        [peer["name"], peer["state"], peer["newest"], peer["sealing"]] for peer in shown["peers"]
    ]
    output.print_result(output.table(headers, rows, show_header=not args.no_header))
    return 0


def _head(shown: JsonObject) -> list[tuple[str, str]]:
    now_s = time.time()
    (used,) = [key for key in shown["held"] if key["sealing"]]
    others = [str(key["generation"]) for key in shown["held"] if not key["sealing"]]
    step = shown["step"]
    if shown["waiting_for"]:
        step += f": waiting for {', '.join(shown['waiting_for'])}"
        step += "" if shown["waiting_s"] is None else f", {output.duration(shown['waiting_s'])}"
    age = output.duration(max(0.0, now_s - used["made"]))
    lines = [("Generation", f"{used['generation']}, created {age} ago"), ("Rotation", step)]
    if others:
        lines.append(("Also held", ", ".join(others)))
    if shown["next"] is not None:
        lines.append(
            ("Next", f"in {output.duration(max(0.0, shown['next'] - now_s))}, created here")
        )
    accepted = [
        f"{each['datagrams']} of generation {each['generation']}" for each in shown["accepted"]
    ]
    lines.append(("Datagrams", ", ".join(accepted) or "none yet"))
    lines.append(("Refused", f"{shown['unknown']} of a removed or unknown generation"))
    return lines
