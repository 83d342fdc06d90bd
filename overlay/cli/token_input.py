"""Read a join token from a file, standard input or the environment.

Never from an argument: other users of a machine see the arguments of every process.
Does not: know the structure of a token; the agent checks it.
"""

from __future__ import annotations

import os
import stat
import sys
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from overlay.cli import output
from overlay.errors import ForbiddenError, NotFoundError, OverlayError, UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

VARIABLE = "OVERLAYD_TOKEN"
PREFIX = "ovt1."
STDIN = "-"
TOKEN_SIZE_MAX = 4096  # a token has about 80 characters; more means a wrong file
HINT = "On the first host: sudo overlayd token show > token; then copy that file here (mode 0600)"


def read_token(
    token_file: str | None, environ: Mapping[str, str], stdin: TextIO | None = None
) -> str | None:
    """Return the token, or None if none was given; raises the OverlayError of the cause."""
    if token_file is None:
        text = environ.get(VARIABLE)
        return None if text is None else _checked(text, f"the variable {VARIABLE}")
    if token_file == STDIN:
        text = (stdin or sys.stdin).read(TOKEN_SIZE_MAX + 1)
        return _checked(text, "standard input")
    return _checked(_from_file(token_file), token_file)


def refuse_token_arguments(words: Sequence[str]) -> None:
    """Raise UsageError if a token was given on the command line."""
    if any(word.startswith(PREFIX) for word in words):
        raise UsageError(
            "a token must not be given as an argument",
            why="other users of this machine can see it there; treat this one as leaked",
            hint=f"Put it into a file for --token-file, or pipe it to --token-file -, "
            f"or set {VARIABLE}",
        )


def _from_file(path: str) -> str:
    try:
        with Path(path).open(encoding="utf-8", errors="replace") as file:
            mode = os.fstat(file.fileno()).st_mode
            text = file.read(TOKEN_SIZE_MAX + 1)
    except FileNotFoundError as error:
        raise NotFoundError(f"token file {path} does not exist", hint=HINT) from error
    except PermissionError as error:
        raise ForbiddenError(f"cannot read the token file {path}", hint="Use sudo") from error
    except OSError as error:
        raise OverlayError(f"cannot read the token file {path}", why=str(error.strerror)) from error
    if stat.S_ISREG(mode) and mode & (stat.S_IRGRP | stat.S_IROTH):
        output.warn(f"other users can read the token in {path}", f"chmod 600 {path}")
    return text


def _checked(text: str, source: str) -> str:
    token = text.strip()
    if not token:
        raise UsageError(f"{source} contains no token", why="it is empty", hint=HINT)
    if len(token) > TOKEN_SIZE_MAX or not token.startswith(PREFIX) or len(token.split()) > 1:
        raise UsageError(
            f"{source} does not contain a join token",
            why=f"a join token is one line that starts with {PREFIX}",
            hint=HINT,
        )
    return token
