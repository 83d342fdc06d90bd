"""Read a file of declared objects, TOML or JSON, and name lines in errors about it.

Owns: which of the two a file is, its syntax errors, and the line of what the agent refuses.
Does not: know what a file may declare; the agent's schema does.
"""

from __future__ import annotations

import json
import re
import sys
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from overlay import limits
from overlay.cli import secret_file
from overlay.core.apply.positions import Positions, json_positions, toml_positions
from overlay.errors import OverlayError, UsageError

if TYPE_CHECKING:
    from typing import TextIO

_FORMAT_HINT = "The guide has whole files to start from: docs/guide/apply.md"
_PATH = re.compile(r"\b[a-z]+\[\d+\](?:\.\w+|\[\d+\])*")
_TOML_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


class DeclaredFile:
    """A file's content as plain values, and where each of them is."""

    def __init__(self, name: str, text: str) -> None:
        self.name = name
        is_json = text.lstrip().startswith("{")
        self.content: dict[str, Any] = _json(name, text) if is_json else _toml(name, text)
        self._positions = (json_positions if is_json else toml_positions)(text)
        _require_unique(name, self._positions)

    def located(self, error: OverlayError) -> OverlayError:
        """Return an error of the agent about this file that names the line."""
        line = self._positions.line_of(error.field)
        if line is None:  # of an unknown section, where its first object is
            line = self._positions.line_of(f"{error.field}[0]")
        if line is None:
            return error
        why = _PATH.sub(lambda match: self._line_text(match[0]), error.why)
        what = f"{self.name}:{line}: {error.what}"
        return type(error)(what, why=why, hint=error.hint, field=error.field)

    def _line_text(self, path: str) -> str:
        line = self._positions.line_of(path)
        return path if line is None else f"on line {line}"


def read(path: str, stdin: TextIO | None = None) -> DeclaredFile:
    """Read a file, or standard input for `-`; raises the OverlayError of the cause."""
    if path == secret_file.STDIN:
        text = (stdin or sys.stdin).read(limits.API_BODY_SIZE_MAX + 1)
        name = "standard input"
    else:
        hint = "'overlayd export > FILE' writes one"
        text, _ = secret_file.read_file(Path(path), "file", limits.API_BODY_SIZE_MAX, hint=hint)
        name = path
    if len(text) > limits.API_BODY_SIZE_MAX:
        raise UsageError(
            f"{name} is too large",
            why=f"a file has at most {limits.API_BODY_SIZE_MAX} characters",
            hint="Split it into several files, each with an owner of its own",
        )
    return DeclaredFile(name, text)


def _toml(name: str, text: str) -> dict[str, Any]:
    try:
        found = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        place = _TOML_PLACE.search(str(error))
        line = place[1] if place and place[1] else str(text.count("\n") + 1)
        why = _TOML_PLACE.sub("", str(error))
        raise UsageError(
            f"{name}:{line}: this is not valid TOML", why=why, hint=_FORMAT_HINT
        ) from error
    except RecursionError as error:
        raise UsageError(f"{name} is nested too deeply") from error
    # Dates and the like, of which the schema has none, become texts: the agent names the key.
    return dict(json.loads(json.dumps(found, default=str)))


def _json(name: str, text: str) -> dict[str, Any]:
    try:
        return dict(json.loads(text, parse_constant=str))
    except json.JSONDecodeError as error:
        raise UsageError(
            f"{name}:{error.lineno}: this is not valid JSON", why=error.msg, hint=_FORMAT_HINT
        ) from error
    except RecursionError as error:
        raise UsageError(f"{name} is nested too deeply") from error


def _require_unique(name: str, positions: Positions) -> None:
    """Raise UsageError for a key that a JSON object has twice; TOML's parser refuses that."""
    for path, line in positions.repeated:
        raise UsageError(
            f"{name}:{line}: {path} is given twice",
            why=f"the first one is on line {positions.lines[path]}",
            hint="Leave one of them out",
        )
