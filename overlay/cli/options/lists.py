"""The options of all lists, and how a list is printed: a table, names, a template or JSON."""

from __future__ import annotations

from overlay.cli import output
from overlay.errors import UsageError

TYPE_CHECKING = False  # typing itself takes a tenth of a command's time to import
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Sequence

    from overlay.client.api import JsonObject
    from overlay.strict_arguments import StrictParser


def add_list_options(parser: StrictParser) -> None:
    """Add `--no-header`, `--quiet` and `--format`."""
    parser.add_argument("--no-header", action="store_true", help="omit the header line")
    parser.add_argument("-q", "--quiet", action="store_true", help="print names only")
    add_format_option(parser)


def add_format_option(parser: StrictParser) -> None:
    """Add `--format`."""
    parser.add_argument(
        "--format",
        metavar="TEMPLATE",
        help="how each is printed, such as '{{.Name}}', '{{json .}}', "
        "'table {{.Name}}\\t{{.Labels}}'; fields as in --json",
    )


def print_rows(args: Namespace, listed: JsonObject, field: str, name: str = "name") -> bool:
    """Print a list in the form that was asked for; return False if that is a table.

    `field` has the rows, and `name` what `--quiet` prints of each.
    """
    asked = [option for option in ("json", "quiet", "format") if getattr(args, option)]
    if len(asked) > 1:
        raise UsageError(
            f"--{asked[0]} and --{asked[1]} are given, and each prints the list in its own form",
            hint="Leave one of them out",
        )
    if args.json:
        output.print_json(listed)
        return True
    rows: Sequence[JsonObject] = listed[field]
    if args.format is not None:
        print_formatted(args.format, rows)
        return True
    for row in rows if args.quiet else ():
        output.print_result(str(row[name]))
    return bool(args.quiet)


def print_one(args: Namespace, shown: JsonObject, text: Callable[[JsonObject], str]) -> bool:
    """Print one object in the form that was asked for; return whether that is the text."""
    if args.format is not None:
        print_formatted(args.format, [shown])
    elif args.json:
        output.print_json(shown)
    else:
        output.print_result(text(shown))
        return True
    return False


def print_formatted(template: str, rows: Sequence[JsonObject]) -> None:
    """Print each row by a template; raises UsageError for one that is not understood."""
    from overlay.cli.options import templates  # noqa: PLC0415  rarely needed

    for line in templates.formatted(template, rows):
        output.print_result(line)
