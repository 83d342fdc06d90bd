"""An argument parser for command lines that must not be misread.

Owns: that no option may be abbreviated, or given twice where it has one value, and that a wrong
command line raises UsageError. Does not: know any command.
"""

from __future__ import annotations

import argparse

from overlay.errors import UsageError
from overlay.usage_text import usage_error_text, usage_line

TYPE_CHECKING = False  # typing itself takes a tenth of a command's time to import
if TYPE_CHECKING:
    from collections.abc import Container, Sequence
    from typing import Any, NoReturn, Self


class Metavar(str):
    """The METAVAR of an argument whose words are of another kind than it tells."""

    __slots__ = ("kind",)
    kind: str

    def __new__(cls, shown: str, *, kind: str) -> Self:
        """Return the METAVAR that is shown; `kind` is for completion."""
        made = super().__new__(cls, shown)
        made.kind = kind
        return made


class _StoreOnce(argparse.Action):
    """Store an option's value; an option that is given twice would lose the first one."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Store the value; raises UsageError for a second one."""
        if option_string and isinstance(parser, StrictParser):
            if self.dest in parser.given:
                parser.error(f"{option_string} is given twice")
            parser.given.add(self.dest)
        setattr(namespace, self.dest, values)


class StrictParser(argparse.ArgumentParser):
    """An argument parser that raises UsageError instead of exiting the process.

    It parses one command line.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        # An abbreviation may mean another option later: --token was --token-file.
        super().__init__(*args, **{"allow_abbrev": False, **options})
        self.given: set[str] = set()  # options that take one value, shared with parsers of verbs
        for name in (None, "store"):
            self.register("action", name, _StoreOnce)

    def error(self, message: str) -> NoReturn:
        """Raise UsageError; argparse calls this on every wrong command line."""
        raise UsageError(
            usage_error_text(message, self),
            why=usage_line(self, message),
            hint=f"{self.prog} --help",
        )


def with_command_apart(
    words: list[str], path: Sequence[str], options: Container[str] = ()
) -> list[str]:
    """Return a command line with `--` between the name after a verb and the command after it.

    `path` is the verb, such as `container exec`; `options` are those that take a value and may
    stand before the name. So all words after the name are the command's, also its options.
    """
    expected, number = list(path), 0
    while number < len(words):
        word = words[number]
        if word == "--":
            break
        if word.startswith("-"):
            number += 1 + (word in options)
        elif not expected:
            after = words[number + 1 :]
            return [*words[: number + 1], *([] if after[:1] == ["--"] else ["--"]), *after]
        elif word != expected.pop(0):
            break
        else:
            number += 1
    return list(words)
