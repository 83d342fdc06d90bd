"""Command `web`: a page with the cluster, for a browser.

Owns: its options, and what it prints. Does not: serve anything (`overlay.web`).
"""

from __future__ import annotations

import socket
import sys
from typing import TYPE_CHECKING

from overlay import limits
from overlay.cli import output
from overlay.cli.secret_file import read_secret
from overlay.errors import UsageError
from overlay.lean_imports import without_openssl

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup
    from overlay.errors import OverlayError
    from overlay.web.listen import WebAddress

LISTEN = "127.0.0.1:7950"
TOKEN_HINT = "(umask 077; head -c 24 /dev/urandom | base64 > FILE)"  # noqa: S105 - a command
DESCRIPTION = """\
Serve a page that shows the cluster as this host knows it, live: hosts and the paths to them,
networks, containers, events.  It only looks, loads nothing from elsewhere, and ends with Ctrl-C.

By default only this host reaches it, and only root and the group of the agent's API may see it.
From another computer: ssh -L 7950:127.0.0.1:7950 HOST, then open http://127.0.0.1:7950/
With --token-file everybody needs the token in the file; on an address that other hosts reach, it
is required.  There is no TLS: whoever can read the traffic can read the token.
"""


def register(words: VerbGroup) -> None:
    """Add the verb of this module."""
    web = words.verb("web", run_web, "show the cluster in a browser", DESCRIPTION)
    web.add_argument(
        "--listen",
        metavar="ADDRESS",
        default=LISTEN,
        help=f"IP address and port, or unix:PATH (default: {LISTEN})",
    )
    web.add_argument(
        "--token-file", metavar="FILE", help="who wants to see the page needs the token in it"
    )
    web.add_argument(
        "--name",
        dest="names",
        metavar="NAME",
        action="append",
        default=[],
        help="a host name under which browsers reach it, such as a proxy's (repeatable)",
    )


def run_web(args: Namespace) -> int:
    """Serve the page until it is stopped."""
    with without_openssl():
        from overlay.web import listen, main  # noqa: PLC0415  slow to import

    address = listen.parse(args.listen)
    token = None if args.token_file is None else read_token(args.token_file)

    def announce(problem: OverlayError | None) -> None:
        if problem is not None:
            output.warn(f"the page shows nothing yet: {problem.what}", problem.hint)
        if not address.is_local:
            output.warn(
                "the page is served without TLS: whoever can read the traffic can read the token",
                "Prefer a proxy with TLS, or: ssh -L 7950:127.0.0.1:7950 HOST",
            )
        if args.json:
            output.print_json_line(
                {
                    "schema": "overlayd.web/v1",
                    "listen": address.text,
                    "url": _url(address),
                    "token": token is not None,
                }
            )
        else:
            output.print_result(_invitation(address, has_token=token is not None))
            sys.stdout.flush()  # to a file or a pipe, it would come with the end

    return main.run(args.paths, address, token, args.names, announce)


def read_token(path: str) -> str:
    """Return the token in a file; raises OverlayError."""
    noun = "token"
    token = read_secret(path, noun, limits.WEB_TOKEN_SIZE_MAX, hint=TOKEN_HINT).strip()
    count = f"{len(token)}"
    if len(token) > limits.WEB_TOKEN_SIZE_MAX:
        count = f"more than {limits.WEB_TOKEN_SIZE_MAX}"
    if not limits.WEB_TOKEN_LENGTH_MIN <= len(token) <= limits.WEB_TOKEN_SIZE_MAX:
        raise UsageError(
            f"the token in {path} has {count} characters",
            why=f"it needs {limits.WEB_TOKEN_LENGTH_MIN} to {limits.WEB_TOKEN_SIZE_MAX}, so that "
            "nobody can guess it",
            hint=TOKEN_HINT,
            field="token_file",
        )
    if not token.isprintable():
        raise UsageError(
            f"the token in {path} is more than one line of text",
            hint=TOKEN_HINT,
            field="token_file",
        )
    return token


def _url(address: WebAddress) -> str | None:
    if address.path is not None:
        return None
    if address.host in ("0.0.0.0", "::"):  # noqa: S104 - named, not bound
        return f"http://{socket.gethostname()}:{address.port}/"
    return f"http://{address.text}/"


def _invitation(address: WebAddress, *, has_token: bool) -> str:
    where = _url(address) or f"the socket {address.path}"
    return f"serving the page on {where}" + (" (it asks for the token)" if has_token else "")
