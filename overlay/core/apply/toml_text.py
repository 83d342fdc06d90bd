"""Write a declared state as TOML; the standard library only reads it.

Owns: the layout: one array of tables per kind of object, short values on one line.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")
_LINE_MAX = 88


def toml_text(document: Mapping[str, Any]) -> str:
    """Return a document of plain values and of lists of tables as a TOML file."""
    lines = [_pair(key, value) for key, value in document.items() if not _is_tables(value)]
    for key, tables in document.items():
        if _is_tables(tables):
            for table in tables:
                lines += ["", f"[[{_key(key)}]]", *(_pair(*pair) for pair in table.items())]
    return "\n".join(lines).lstrip("\n") + "\n"


def _is_tables(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, Mapping) for each in value)


def _pair(key: str, value: Any) -> str:
    line = f"{_key(key)} = {_value(value)}"
    if len(line) <= _LINE_MAX or not isinstance(value, list):
        return line
    return "\n".join([f"{_key(key)} = [", *(f"  {_value(each)}," for each in value), "]"])


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else _string(key)


def _value(value: Any) -> str:
    match value:
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case list():
            return f"[{', '.join(map(_value, value))}]"
        case Mapping():
            inner = ", ".join(f"{_key(key)} = {_value(each)}" for key, each in value.items())
            return f"{{ {inner} }}" if inner else "{}"
    return _string(str(value))


def _string(text: str) -> str:
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
