"""`--format TEMPLATE`: print rows as docker's templates do.

Owns: the part of Go's templates that lines of a list need: fields, `json`, `join`, `upper`, `lower`
and `len`. Does not: know any verb; a field is one of `--json`, written `.Name` or `.name`.
"""

from __future__ import annotations

import json
import re
import shlex
from typing import TYPE_CHECKING, Any, NamedTuple

from overlay.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from overlay.client.api import JsonObject

TABLE = "table "
_ACTION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
_ESCAPES = {r"\t": "\t", r"\n": "\n"}
_EXAMPLE = "Such as '{{.Name}}', '{{json .}}' or 'table {{.Name}}\\t{{.Node}}'"


class _Action(NamedTuple):
    """One `{{...}}`: a function, the fields it is given, and join's separator."""

    function: str  # empty: the value as text
    path: tuple[str, ...]  # empty: the whole row
    separator: str = ""


class Template:
    """A parsed template; raises UsageError for one that is not understood."""

    def __init__(self, text: str) -> None:
        self.is_table = text.startswith(TABLE)
        for escape, meant in _ESCAPES.items():
            text = text.replace(escape, meant)
        # Text and actions take turns.
        parts = _ACTION.split(text.removeprefix(TABLE) if self.is_table else text)
        if any("{{" in part or "}}" in part for part in parts[::2]):
            raise _refused("there is a {{ without its }}, or a }} without its {{")
        self._parts = [_parsed(part) if number % 2 else part for number, part in enumerate(parts)]

    def line(self, row: JsonObject) -> str:
        """Return a row as text; raises UsageError for a field that it has not."""
        return "".join(
            part if isinstance(part, str) else _rendered(part, row) for part in self._parts
        )

    def headers(self) -> str:
        """Return the line above a table: the fields' names."""
        return "".join(
            part if isinstance(part, str) else (" ".join(part.path) or "row").upper()
            for part in self._parts
        )


def _parsed(text: str) -> _Action:
    try:
        words = shlex.split(text)
    except ValueError:
        raise _refused(f"{{{{{text}}}}} has a quote that does not end") from None
    function = words.pop(0) if words and not words[0].startswith(".") else ""
    if function not in ("", *_FUNCTIONS, "join"):
        raise _refused(f"{function!r} is not one of {', '.join([*_FUNCTIONS, 'join'])}")
    if not words or not words[0].startswith("."):
        raise _refused(f"{{{{{text}}}}} names no field")
    path = tuple(filter(None, words.pop(0).split(".")))
    separator = words.pop(0) if function == "join" and words else " "
    if words:
        raise _refused(f"{{{{{text}}}}} has more words than it can use")
    return _Action(function, path, separator)


def _rendered(action: _Action, row: JsonObject) -> str:
    value: Any = row
    for name in action.path:
        value = _field(value, name)
    if action.function == "join":
        return action.separator.join(map(_text, value if isinstance(value, list) else [value]))
    return _FUNCTIONS.get(action.function, _text)(value)


def _field(value: Any, name: str) -> Any:
    """Return a field of an object, or of each object of a list."""
    if isinstance(value, list):
        return [_field(each, name) for each in value]
    fields = value if isinstance(value, dict) else {}
    for key, found in fields.items():
        if _plain(key) == _plain(name):
            return found
    known = ", ".join(f".{key}" for key in fields) or "none: it is a value"
    raise _refused(f"there is no field .{name}; known fields: {known}")


def _plain(name: str) -> str:
    """Return a name as it is compared: `.EndpointsLocal` is `endpoints_local`."""
    return name.replace("_", "").lower()


def _text(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return " ".join(map(_text, value))
    if isinstance(value, dict):
        return ",".join(f"{key}={_text(found)}" for key, found in value.items())
    return str(value)


_FUNCTIONS = {
    "json": lambda value: json.dumps(value, ensure_ascii=False),
    "upper": lambda value: _text(value).upper(),
    "lower": lambda value: _text(value).lower(),
    "len": lambda value: str(len(value) if isinstance(value, list | dict | str) else 0),
}


def _refused(why: str) -> UsageError:
    return UsageError("the template is not understood", why=why, hint=_EXAMPLE, field="format")


def formatted(text: str, rows: Sequence[JsonObject]) -> list[str]:
    """Return a line for each row; a `table` has a header and aligned columns."""
    template = Template(text)
    lines = [template.line(row) for row in rows]
    if not template.is_table:
        return lines
    from overlay.cli import output  # noqa: PLC0415  output knows no options

    header, *cells = [line.split("\t") for line in (template.headers(), *lines)]
    return output.table(header, cells).splitlines()
