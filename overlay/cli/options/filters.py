"""`--filter KEY=VALUE` of verbs that list: which of the rows that the agent gave are shown.

Must not know any verb: each says which keys its rows have, and what they are called there.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from overlay.cli.parser import Parser
    from overlay.client.api import JsonObject

LABEL = "label"


def add_filter_option(parser: Parser, keys: Iterable[str]) -> None:
    """Add `--filter` for rows that can be chosen by these keys and by label."""
    shown = ", ".join(f"{key}=VALUE" for key in keys)
    parser.add_argument(
        "--filter",
        dest="filters",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help=f"only what fits: {shown}, label=NAME or label=NAME=VALUE; repeat: all must fit",
    )


def filter_rows(
    rows: Sequence[JsonObject], filters: Sequence[str], fields: Mapping[str, str]
) -> list[JsonObject]:
    """Return the rows that fit every filter; `fields` has the row's field of each key."""
    found = list(rows)
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals or not value or key not in (*fields, LABEL):
            known = ", ".join([*(f"{key}=VALUE" for key in fields), "label=NAME[=VALUE]"])
            raise UsageError(f"{text!r} is no filter", hint=f"Use one of {known}", field="filters")
        if key == LABEL:
            found = [row for row in found if _has_label(row.get("labels") or {}, value)]
        else:
            found = [row for row in found if str(row.get(fields[key])) == value]
    return found


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    name, equals, value = wanted.partition("=")
    return name in labels and (not equals or labels[name] == value)
