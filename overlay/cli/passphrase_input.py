"""Read a passphrase: from a file, standard input, or a prompt on the terminal.

Never from an argument or the environment. Does not: judge a passphrase; the agent does.
"""

from __future__ import annotations

import sys

from overlay import limits
from overlay.cli import secret_file
from overlay.errors import UsageError

_OPTION = "--passphrase-file FILE, or - for standard input"


def read_passphrase(passphrase_file: str | None, *, is_new: bool) -> str:
    """Return the passphrase; a new one is asked for twice.

    Raises UsageError if there is none, or the two differ.
    """
    if passphrase_file is not None:
        size_max = limits.PASSPHRASE_LENGTH_MAX + 2  # with the end of its line
        text = secret_file.read_secret(passphrase_file, "passphrase", size_max)
        passphrase = text.removesuffix("\n").removesuffix("\r")
        source = "standard input" if passphrase_file == secret_file.STDIN else passphrase_file
    elif sys.stdin.isatty():
        passphrase, source = _prompt(is_new=is_new), "what you typed"
    else:
        raise UsageError(
            "no passphrase was given",
            why="standard input is not a terminal on which to ask for one",
            hint=f"Use {_OPTION}",
        )
    if not passphrase:
        raise UsageError("the passphrase is empty", why=f"{source} has no character", hint=_hint())
    if "\n" in passphrase:
        raise UsageError(
            "the passphrase has several lines", why=f"{source} has more than one", hint=_hint()
        )
    return passphrase


def _hint() -> str:
    return f"Put it on one line: {_OPTION}"


def _prompt(*, is_new: bool) -> str:
    import getpass  # noqa: PLC0415  only a prompt needs it

    passphrase = getpass.getpass("Passphrase: ")
    if is_new and getpass.getpass("Passphrase again: ") != passphrase:
        raise UsageError(
            "the two passphrases differ", why="one of them has a typing error", hint="Try again"
        )
    return passphrase
