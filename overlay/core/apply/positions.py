"""Lines of the keys in a TOML or JSON file that its parser has accepted.

Owns: the path of each key, such as `network[0].subnets[1].gateway`, and the line that it is on.
Does not: check syntax; the standard library's parsers do, and they tell no lines of keys.
"""

from __future__ import annotations

import bisect
import json
import re
from typing import Final, NamedTuple

Path = tuple[str | int, ...]

_BARE_KEY: Final = re.compile(r"[A-Za-z0-9_-]+")
_BLANK: Final = re.compile(r"(?:[\s,]|#[^\n]*)*")
_SPACE: Final = re.compile(r"[ \t]*")
_SCALAR: Final = re.compile(r"[^\s,\]}#]*")
_STRING: Final = re.compile(
    r'"""(?:[^\\]|\\.)*?"{3,5}' r"|'''.*?'{3,5}" r'|"(?:[^"\\]|\\.)*"' r"|'[^']*'", re.DOTALL
)


class Positions(NamedTuple):
    """The line of each key and item of a file, and the keys of JSON objects that occur twice."""

    lines: dict[str, int]
    repeated: list[tuple[str, int]]

    def line_of(self, path: str) -> int | None:
        """Return the line of a path, or else that of the closest key that contains it."""
        while path:
            if path in self.lines:
                return self.lines[path]
            path = path[: max(path.rfind("."), path.rfind("["), 0)]
        return None


def path_text(path: Path) -> str:
    """Return a path as text, such as `network[0].name`."""
    text = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return text.removeprefix(".")


def toml_positions(text: str) -> Positions:
    """Return the lines of a TOML file's keys."""
    scanner = _Scanner(text)
    scanner.document()
    return Positions(scanner.lines, [])


def json_positions(text: str) -> Positions:
    """Return the lines of a JSON file's keys."""
    scanner = _Scanner(text)
    scanner.value(())
    return Positions(scanner.lines, scanner.repeated)


class _Scanner:
    """Walks over a text that is known to be valid."""

    def __init__(self, text: str) -> None:
        self.lines: dict[str, int] = {}
        self.repeated: list[tuple[str, int]] = []
        self._text = text
        self._at = 0
        self._ends = [match.start() for match in re.finditer("\n", text)]
        self._counts: dict[Path, int] = {}  # of the tables in each array of tables

    def document(self) -> None:
        """Note the keys of a TOML file."""
        table: Path = ()
        while self._skip(_BLANK):
            if self._text.startswith("[", self._at):
                table = self._header()
            else:
                self._pair(table)

    def _header(self) -> Path:
        start = self._at
        is_array = self._text.startswith("[[", self._at)
        self._at += 1 + is_array
        keys = self._keys()
        self._at = self._text.index("]" * (1 + is_array), self._at) + 1 + is_array
        table: Path = ()
        for number, key in enumerate(keys, 1):
            table = (*table, key)
            if is_array and number == len(keys):
                self._counts[table] = self._counts.get(table, 0) + 1
            if table in self._counts:
                table = (*table, self._counts[table] - 1)
        self._note(table, start)
        return table

    def _pair(self, table: Path) -> None:
        start = self._at
        path = (*table, *self._keys())
        self._at += 1  # the sign between key and value
        self._note(path, start)
        self.value(path)

    def _keys(self) -> list[str]:
        """Return the parts of a dotted key, up to the sign after it."""
        keys: list[str] = []
        while True:
            self._skip(_SPACE)
            quoted = self._text[self._at] in "\"'"
            found = (_STRING if quoted else _BARE_KEY).match(self._text, self._at)
            assert found is not None, "the file was parsed before"
            keys.append(_unquoted(found[0]) if quoted else found[0])
            self._at = found.end()
            self._skip(_BLANK if quoted else _SPACE)  # JSON allows a line break before the colon
            if not self._text.startswith(".", self._at):
                return keys
            self._at += 1

    def value(self, path: Path) -> None:
        """Note the keys and items within the value that begins here, and move behind it."""
        self._skip(_BLANK)
        opening = self._text[self._at]
        if opening == "{":
            self._at += 1
            while self._skip(_BLANK) and self._text[self._at] != "}":
                self._pair(path)
            self._at += 1
        elif opening == "[":
            self._at += 1
            index = 0
            while self._skip(_BLANK) and self._text[self._at] != "]":
                self._note((*path, index), self._at)
                self.value((*path, index))
                index += 1
            self._at += 1
        else:
            found = (_STRING if opening in "\"'" else _SCALAR).match(self._text, self._at)
            assert found is not None, "the file was parsed before"
            self._at = found.end()

    def _note(self, path: Path, at: int) -> None:
        text, line = path_text(path), bisect.bisect_left(self._ends, at) + 1
        if text in self.lines:
            self.repeated.append((text, line))
        self.lines.setdefault(text, line)

    def _skip(self, pattern: re.Pattern[str]) -> bool:
        """Move behind what the pattern matches here; return whether any text is left."""
        found = pattern.match(self._text, self._at)
        assert found is not None, "it matches nothing, too"
        self._at = found.end()
        return self._at < len(self._text)


def _unquoted(text: str) -> str:
    """Return a quoted key without its quotes."""
    if text[0] == '"':
        try:
            return str(json.loads(text))
        except ValueError:  # an escape that only TOML has
            pass
    return text[1:-1]
