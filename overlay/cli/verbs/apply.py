"""Commands `apply` and `export`: a file that declares the cluster's objects.

Owns: their options, and how a plan is shown. Does not: know what a file may declare.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay import errors
from overlay.cli import output
from overlay.client.api import ApiClient, JsonObject

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

CHANGES_PENDING = 8  # the exit code of `--dry-run` where something would change
APPLY_DESCRIPTION = """\
Make the cluster's networks, services, policies, routers, DNS records, exposed networks, published
ports and plugs what FILE declares (TOML or JSON; - is standard input).  All of it is checked before
the first change.  What the file does not mention stays as it is; with --prune, what a file with the
same owner made before and no longer has is removed.  Applying a file again changes nothing.

  overlayd apply --dry-run shop.toml      exit 0: nothing would change; exit 8: something would
  sudo overlayd apply shop.toml
  sudo overlayd apply --prune shop.toml
"""
EXPORT_DESCRIPTION = """\
Print the networks, services, policies, routers, DNS records, exposed networks, published ports and
plugs as a file that 'apply' reads: of the whole cluster, or those of one owner.  Ports, exposures
and plugs that a command made on another host are left out.

  overlayd export > cluster.toml
  overlayd export --owner shop --json
"""
SIGNS = {"create": "+", "change": "~", "remove": "-"}
NOUNS = {
    "dns": "DNS record",
    "expose": "exposure",
    "network": "network",
    "plug": "plug",
    "policy": "policy",
    "publish": "published port",
    "router": "router",
    "service": "service",
}


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    apply = words.verb(
        "apply", run_apply, "make the cluster's objects what a file declares", APPLY_DESCRIPTION
    )
    apply.add_argument("file", metavar="FILE", help="TOML or JSON file; - for standard input")
    apply.add_argument(
        "--dry-run", action="store_true", help="only show the changes; exit 8 if there are any"
    )
    apply.add_argument(
        "--prune",
        action="store_true",
        help="remove what the file's owner made before and the file no longer has",
    )
    export = words.verb(
        "export", run_export, "print the present state as a file for 'apply'", EXPORT_DESCRIPTION
    )
    export.add_argument("--owner", metavar="NAME", help="only what files of this owner declare")


def run_apply(args: Namespace) -> int:
    """Apply a file, or show what that would change."""
    from overlay.cli import declared_file  # noqa: PLC0415  only this verb needs it

    file = declared_file.read(args.file)
    body = {"file": file.content, "dry_run": args.dry_run, "prune": args.prune}
    try:
        answer = ApiClient(args.paths).post("/v1/apply", body)
    except errors.OverlayError as error:
        raise file.located(error) from error
    failure = answer["failure"]
    if args.json:
        output.print_json(answer)
    else:
        _show(answer)
    if failure:
        found = errors.ERROR_BY_CODE.get(failure["code"], errors.OverlayError)(
            failure["what"], why=failure["why"], hint=failure["hint"], field=failure["field"]
        )
        output.report(file.located(found))
        return errors.DegradedError.exit_code
    return CHANGES_PENDING if args.dry_run and answer["changes"] else 0


def _show(answer: JsonObject) -> None:
    changes = answer["changes"]
    failed = bool(answer["failure"])
    for change in changes:
        if change["done"] or answer["dry_run"]:
            output.print_result(line_of(change))
    if failed:
        for change in changes:
            if not change["done"]:
                output.print_note(f"not made: {line_of(change)}")
    done = sum(1 for change in changes if change["done"])
    count = output.count_text(len(changes), "change")
    if not changes:
        output.print_note("nothing to change")
    elif answer["dry_run"]:
        output.print_note(f"{count} to make: the same command without --dry-run")
    elif failed:
        output.print_note(f"{done} of {count} made; the same command continues with the rest")
    else:
        output.print_note(f"{count} made")


def line_of(change: JsonObject) -> str:
    """Return a step of the plan in one line."""
    title = f"{SIGNS[change['action']]} {NOUNS.get(change['kind'], change['kind'])} "
    settings = ", ".join(
        f"{each['setting']} {each['before']} → {each['after']}" for each in change["changes"]
    )
    return f"{title}{change['name']}{': ' if settings else ''}{settings}"


def run_export(args: Namespace) -> int:
    """Print the present state as a file."""
    answer = ApiClient(args.paths).get("/v1/export", owner=args.owner)
    if args.json:
        output.print_json(answer)
        return 0
    from overlay.core.apply.toml_text import toml_text  # noqa: PLC0415  only this verb needs it

    document = {key: value for key, value in answer.items() if value and key != "schema"}
    for network in document.get("network", ()):
        network["subnets"] = [_short(subnet) for subnet in network["subnets"]]
    output.print_result(toml_text(document).rstrip("\n"))
    return 0


def _short(subnet: JsonObject) -> JsonObject | str:
    """Return a subnet without options as its text alone."""
    return subnet if set(subnet) != {"subnet"} else str(subnet["subnet"])
