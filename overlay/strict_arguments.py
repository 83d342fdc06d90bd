"""An argument parser for command lines that must not be misread.

Owns: that no option may be abbreviated, or given twice where it has one value, and that a wrong
command line raises UsageError. Does not: know any command.
"""

from __future__ import annotations

import argparse
from typing import Any, NoReturn

from overlay.errors import UsageError


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
        raise UsageError(message, hint=f"{self.prog} --help")
