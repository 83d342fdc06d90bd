"""Command `token`.

Owns: their options and output. A token is printed once, to stdout only, and is never accepted
as an argument.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from overlay import limits
from overlay.cli import output
from overlay.cli.options.lists import add_list_options, print_rows
from overlay.client.api import ApiClient, JsonObject
from overlay.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

_UNITS_S = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}
_DURATION = re.compile(r"(\d{1,6})([smhdw])")

CREATE_DESCRIPTION = """\
Create a join token and print it.  It is shown only once: redirect it to a file.

  sudo overlayd token create --expires 24h --uses 3 --label rack7 > token

Without --expires it is permanent; without --uses it admits any number of hosts.  Uses are counted
in the cluster's records.  The count is exact while the authority's holders can reach each other;
in a partition with a holder on each side, each side may admit that many.
"""


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    token = words.group("token", "create, list and revoke join tokens")
    token.verb("show", run_show, "print the permanent join token (root only)")
    create = token.verb("create", run_create, "create a join token", CREATE_DESCRIPTION)
    create.add_argument(
        "--expires", metavar="TIME", help="lifetime, such as 24h (default: permanent)"
    )
    create.add_argument(
        "--uses", type=int, metavar="N", help="hosts that it admits (default: any number)"
    )
    create.add_argument("--label", metavar="TEXT", help="description, shown by 'token ls'")
    listed = token.verb("ls", run_list, "list the tokens, without their secrets", watch=True)
    add_list_options(listed)
    revoke = token.verb("revoke", run_revoke, "revoke a token; hosts that used it stay members")
    revoke.add_argument("id", metavar="ID", help="token id, or a prefix of it")


def seconds(text: str) -> int:
    """Return a duration such as `90s`, `30m`, `24h`, `7d` in seconds; raises UsageError."""
    found = _DURATION.fullmatch(text)
    if found is None or not int(found[1]):
        raise UsageError(
            f"invalid duration {text!r}",
            hint="Use a number and a unit s, m, h, d or w: 24h",
            field="expires",
        )
    found_s = int(found[1]) * _UNITS_S[found[2]]
    if found_s > limits.TOKEN_LIFE_MAX_S:
        raise UsageError(
            f"duration {text!r} is too long",
            why=f"a token is valid for at most {limits.TOKEN_LIFE_MAX_S // _UNITS_S['d']}d",
            hint="Without --expires, a token is valid until it is revoked",
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
    """Create a token."""
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
        output.print_note(f"token {made['id'][:8]}; to revoke it: sudo overlayd token revoke "
                       f"{made['id'][:8]}")  # fmt: skip
    return 0


def run_list(args: Namespace) -> int:
    """List the tokens."""
    listed = ApiClient(args.paths).get("/v1/tokens")
    if print_rows(args, listed, "tokens", "id"):
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
    """Revoke a token."""
    if not re.fullmatch(r"[0-9a-fA-F]{1,16}", args.id):
        raise UsageError(f"{args.id!r} is not a token id", hint="overlayd token ls")
    done = ApiClient(args.paths).delete(f"/v1/tokens/{args.id}")
    if args.json:
        output.print_json(done)
    else:
        output.print_note(f"token {done['revoked'][:8]} revoked")
    return 0
