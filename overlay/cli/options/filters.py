"""`--filter KEY=VALUE`: select rows of a list that the agent returned.

Does not: know any verb; each declares its keys and the fields they are stored in.
"""

from __future__ import annotations

from overlay.errors import UsageError

TYPE_CHECKING = False  # typing itself takes a tenth of a command's time to import
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from overlay.client.api import JsonObject
    from overlay.strict_arguments import StrictParser

LABEL = "label"
_NAMES = ("name", "network")


def add_filter_option(parser: StrictParser, keys: Iterable[str]) -> None:
    """Add `--filter`, which selects rows by these keys and by label."""
    shown = ", ".join(f"{key}=VALUE" for key in keys)
    parser.add_argument(
        "--filter",
        dest="filters",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"show only rows with {shown}, label=NAME or label=NAME=VALUE; all must match",
    )


def filter_rows(
    rows: Sequence[JsonObject], filters: Sequence[str], fields: Mapping[str, str]
) -> list[JsonObject]:
    """Return the rows that match every filter; `fields` maps a key to its field in a row."""
    found = list(rows)
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals or not value or key not in (*fields, LABEL):
            known = ", ".join([*(f"{key}=VALUE" for key in fields), "label=NAME[=VALUE]"])
            raise UsageError(
                f"invalid filter {text!r}", hint=f"Use one of {known}", field="filters"
            )
        if key == LABEL:
            found = [row for row in found if _has_label(row.get("labels") or {}, value)]
        else:
            field = fields[key]
            found = [row for row in found if _equal(key, str(row.get(field)), value)]
    return found


def _equal(key: str, has: str, wanted: str) -> bool:
    """Return whether a field has a value; names are compared as in DNS, whatever their case."""
    if key in _NAMES:
        return has.lower() == wanted.lower()
    return has == wanted


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)
