"""Read a join token from a file, standard input or the environment.

Never from an argument: other users of a machine see the arguments of every process.
Does not: know the structure of a token; the agent checks it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn, TextIO

from overlay.cli import secret_file
from overlay.cli.parser import TOKEN_PREFIX
from overlay.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping

VARIABLE = "OVERLAYD_TOKEN"
TOKEN_SIZE_MAX = 4096  # a token has about 80 characters; more means a wrong file
HINT = (
    "On a host that holds the authority ('overlayd authority ls' shows which): sudo overlayd "
    "token show > token; then copy that file here (mode 0600)"
)


def read_token(
    token_file: str | None, environ: Mapping[str, str], stdin: TextIO | None = None
) -> str | None:
    """Return the token, or None if none was given; raises the OverlayError of the cause."""
    if token_file is None:
        text = environ.get(VARIABLE)
        return None if text is None else _checked(text, f"the variable {VARIABLE}")
    text = secret_file.read_secret(token_file, "token", TOKEN_SIZE_MAX, hint=HINT, stdin=stdin)
    return _checked(text, "standard input" if token_file == secret_file.STDIN else token_file)


def refuse_token_argument() -> NoReturn:
    """Raise the UsageError for a token on the command line."""
    raise UsageError(
        "a token must not be given as an argument",
        why="other users of this machine can see it there; treat this one as leaked",
        hint=f"Put it into a file for --token-file, or pipe it to --token-file -, "
        f"or set {VARIABLE}",
    )


def _checked(text: str, source: str) -> str:
    token = text.strip()
    if not token:
        raise UsageError(f"{source} contains no token", why="it is empty", hint=HINT)
    if len(token) > TOKEN_SIZE_MAX or not token.startswith(TOKEN_PREFIX) or len(token.split()) > 1:
        raise UsageError(
            f"{source} does not contain a join token",
            why=f"a join token is one line that starts with {TOKEN_PREFIX}",
            hint=HINT,
        )
    return token
