"""Verbs about who may come in: token, promote.

Owns: their options and their words. A token is printed once, to stdout alone, and never taken
as an argument.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from overlay import limits
from overlay.cli import output
from overlay.client.api import ApiClient, JsonObject
from overlay.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d{1,6})([smhdw])")

CREATE_DESCRIPTION = """\
Make a join token, and print it.  It is shown this once: put it into a file.

  sudo overlayd token create --expires 24h --uses 3 --label rack7 > token

Without --expires it has no end, without --uses it lets in any number of hosts.  Uses are counted
in the records of the cluster: exactly while the hosts that hold the authority see each other; on
both sides of a partition with a holder on each, each side may let in that many.
"""
PROMOTE_DESCRIPTION = """\
Hand the cluster's authority to a further member, which then admits hosts and makes tokens too.

The cluster runs without any holder; only admitting a host needs one online, so two or three are
wise.  It can't be taken back: whoever had the key may have kept it.
"""


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    token = words.group("token", "make, list and revoke the tokens that let hosts join")
    token.verb("show", run_show, "print this holder's token without end (root only)")
    create = token.verb("create", run_create, "make a join token", CREATE_DESCRIPTION)
    create.add_argument("--expires", metavar="TIME", help="its end, such as 30m, 24h or 7d")
    create.add_argument("--uses", type=int, metavar="N", help="how many hosts it lets in")
    create.add_argument("--label", metavar="TEXT", help="what it is for, shown by 'token ls'")
    listed = token.verb("ls", run_list, "list the tokens: never their secrets")
    listed.add_argument("--no-header", action="store_true", help="rows only")
    revoke = token.verb("revoke", run_revoke, "end a token; who came in by it stays")
    revoke.add_argument("id", metavar="ID", help="the token's id, or how it begins")
    promote = words.verb(
        "promote", run_promote, "let a further node admit hosts", PROMOTE_DESCRIPTION
    )
    promote.add_argument("node", metavar="NODE", help="name or id")


def seconds(text: str) -> int:
    """Return the seconds of a text such as `90s`, `30m`, `24h`, `7d`; raises UsageError."""
    found = _DURATION.fullmatch(text)
    if found is None or not int(found[1]):
        raise UsageError(
            f"{text!r} is no time",
            hint="Write a number and s, m, h, d or w: 24h",
            field="expires",
        )
    found_s = int(found[1]) * _UNITS_S[found[2]]
    if found_s > limits.TOKEN_LIFE_MAX_S:
        raise UsageError(
            f"{text!r} is too long",
            why=f"a token lives at most {limits.TOKEN_LIFE_MAX_S // _UNITS_S['d']}d",
            hint="Without --expires it lives until it is revoked",
            field="expires",
        )
    return found_s


def run_show(args: Namespace) -> int:
    """Print the default token."""
    shown = ApiClient(args.paths).get("/v1/token")
    if args.json:
        output.print_json(shown)
    else:
        output.print_result(shown["token"])
    return 0


def run_create(args: Namespace) -> int:
    """Make a token."""
    body: JsonObject = {
        "expires_s": None if args.expires is None else seconds(args.expires),
        "uses": args.uses,
        "label": args.label,
    }
    made = ApiClient(args.paths).post("/v1/tokens", body)
    if args.json:
        output.print_json(made)
    else:
        output.print_result(made["token"])
        output.print_note(f"token {made['id'][:8]}; end it with: sudo overlayd token revoke "
                       f"{made['id'][:8]}")  # fmt: skip
    return 0


def run_list(args: Namespace) -> int:
    """List the tokens."""
    listed = ApiClient(args.paths).get("/v1/tokens")
    if args.json:
        output.print_json(listed)
        return 0
    now_s = time.time()
    rows = []
    for token in listed["tokens"]:
        ends, most = token["expires"], token["uses_max"]
        rows.append(
            [
                token["id"][:8],
                token["label"],
                token["state"],
                output.duration(max(0.0, now_s - token["created"])),
                "never" if ends is None else output.duration(max(0.0, ends - now_s)),
                token["uses"] if most is None else f"{token['uses']} of {most}",
                token["nodes"],
            ]
        )
    headers = ["ID", "LABEL", "STATE", "AGE", "EXPIRES IN", "USES", "NODES"]
    output.print_result(output.table(headers, rows, show_header=not args.no_header))
    return 0


def run_revoke(args: Namespace) -> int:
    """End a token."""
    if not re.fullmatch(r"[0-9a-fA-F]{1,16}", args.id):
        raise UsageError(f"{args.id!r} is no token's id", hint="'overlayd token ls' shows them")
    done = ApiClient(args.paths).delete(f"/v1/tokens/{args.id}")
    if args.json:
        output.print_json(done)
    else:
        output.print_note(f"token {done['revoked'][:8]} lets nobody in any more")
    return 0


def run_promote(args: Namespace) -> int:
    """Hand the authority on."""
    if not args.node.strip():
        raise UsageError("NODE is empty", hint="overlayd members")
    done = ApiClient(args.paths).post("/v1/promote", {"node": args.node})
    if args.json:
        output.print_json(done)
    else:
        how = "now holds" if done["promoted"] else "already held"
        output.print_note(f"{args.node} {how} the cluster's authority")
    return 0
