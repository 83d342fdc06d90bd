"""Commands `promote` and `authority`.

Owns: their options and output, and the file of an exported authority. The passphrase is never
accepted as an argument. Does not: know the content of that file; the agent seals and opens it.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from overlay import limits
from overlay.cli import output, private_file, secret_file
from overlay.cli.options.lists import add_list_options, print_rows
from overlay.client.api import ApiClient
from overlay.errors import ConflictError, OverlayError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup
    from overlay.strict_arguments import StrictParser

PROMOTE_DESCRIPTION = """\
Give the cluster's authority to another member, which can then also admit hosts and create tokens.

By default the first three members hold it, and one that is lost is replaced automatically
(authority_holders in the configuration).  The cluster runs without any holder online; only
admitting a host and replacing the cluster key need one.  It cannot be undone, since the member
may have kept a copy of the key.
"""
EXPORT_DESCRIPTION = """\
Write the cluster's authority to FILE, sealed by a passphrase (scrypt, ChaCha20-Poly1305), for the
case that all hosts that hold it are lost.  Works on a host that holds it.

  sudo overlayd authority export /root/authority.json
  sudo overlayd authority export authority.json --passphrase-file - < passphrase

FILE must not exist; only root can read it.  Keep it apart from the passphrase: whoever has both
can admit any host to the cluster.
"""
IMPORT_DESCRIPTION = """\
Make this host a holder of the cluster's authority, from the FILE of 'overlayd authority export'.
Works on any member.  It then shares the authority with other members automatically.

  sudo overlayd authority import /root/authority.json
"""


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    promote = words.verb(
        "promote", run_promote, "let another node admit hosts", PROMOTE_DESCRIPTION
    )
    promote.add_argument("node", metavar="NODE", help="name or id")
    group = words.group("authority", "show, back up and restore the right to admit hosts")
    listed = group.verb("ls", run_list, "list the members that hold the authority", watch=True)
    add_list_options(listed)
    export = group.verb(
        "export", run_export, "write a sealed copy to a file (root only)", EXPORT_DESCRIPTION
    )
    restore = group.verb(
        "import", run_import, "hold it from an exported copy (root only)", IMPORT_DESCRIPTION
    )
    for verb in (export, restore):
        _add_file_options(verb)


def _add_file_options(verb: StrictParser) -> None:
    verb.add_argument("file", metavar="FILE", help="the exported authority")
    verb.add_argument(
        "--passphrase-file",
        metavar="FILE",
        help="file with the passphrase; - reads standard input (default: ask on the terminal)",
    )


def run_promote(args: Namespace) -> int:
    """Give the cluster's authority to another node."""
    if not args.node.strip():
        raise UsageError("NODE must not be empty", hint="overlayd members")
    done = ApiClient(args.paths).post("/v1/promote", {"node": args.node})
    if args.json:
        output.print_json(done)
    else:
        how = "now holds" if done["promoted"] else "already held"
        output.print_note(f"{args.node} {how} the cluster's authority")
    return 0


def run_list(args: Namespace) -> int:
    """List the holders of the authority."""
    listed = ApiClient(args.paths).get("/v1/authority")
    if print_rows(args, listed, "holders"):
        return 0
    rows = [
        [holder["name"] + (" *" if holder["self"] else ""), holder["id"], holder["state"]]
        for holder in listed["holders"]
    ]
    output.print_result(output.table(["NODE", "ID", "STATE"], rows, show_header=not args.no_header))
    if not rows:
        output.print_note("no member holds the authority any longer; see: overlayd status")
    elif listed["wanted"] > 1:
        output.print_note(
            f"lost holders are replaced automatically, so that {listed['wanted']} members hold it"
        )
    return 0


def run_export(args: Namespace) -> int:
    """Write a sealed copy of the authority to a new file."""
    from overlay.cli import passphrase_input  # noqa: PLC0415  only these verbs need it

    path = Path(args.file)
    if path.is_symlink() or path.exists():
        raise _exists(path)
    passphrase = passphrase_input.read_passphrase(args.passphrase_file, is_new=True)
    made = ApiClient(args.paths).post("/v1/authority/export", {"passphrase": passphrase})
    _write_new(path, f"{made['sealed']}\n")
    if args.json:
        output.print_json(
            {"schema": made["schema"], "cluster": made["cluster"], "file": str(path.absolute())}
        )
    else:
        output.print_note(
            f"the authority of cluster {made['cluster']} is in {path}, sealed by the passphrase; "
            "keep both, apart from each other and from these hosts"
        )
    return 0


def run_import(args: Namespace) -> int:
    """Hold the authority from an exported copy."""
    from overlay.cli import passphrase_input  # noqa: PLC0415  only these verbs need it

    sealed = _read(Path(args.file))
    passphrase = passphrase_input.read_passphrase(args.passphrase_file, is_new=False)
    body = {"sealed": sealed, "passphrase": passphrase}
    done = ApiClient(args.paths).post("/v1/authority/import", body)
    if args.json:
        output.print_json(done)
    else:
        how = "now holds" if done["imported"] else "already held"
        output.print_note(f"this host {how} the authority of cluster {done['cluster']}")
    return 0


def _exists(path: Path) -> ConflictError:
    return ConflictError(
        f"{path} exists already",
        why="an export never overwrites a file: it may be the only copy",
        hint="Name another file, or remove this one first",
    )


def _write_new(path: Path, text: str) -> None:
    """Write a file that only its owner can read, durably; raises OverlayError if it exists."""
    try:
        private_file.write_new(path, text.encode())
    except FileExistsError as error:
        raise _exists(path) from error
    except OSError as error:
        raise OverlayError(
            f"cannot write {path}",
            why=error.strerror or str(error),
            hint="Name a file in a directory that exists, on a disk with free space",
        ) from error


def _read(path: Path) -> str:
    """Return the content of an exported file; raises the OverlayError of the cause."""
    hint = "Name the file of 'overlayd authority export'"
    text, _ = secret_file.read_file(
        path, "exported authority", limits.API_TEXT_LENGTH_MAX, hint=hint
    )
    if not text.strip() or len(text) > limits.API_TEXT_LENGTH_MAX:
        raise UsageError(
            f"{path} is not an exported authority",
            why="it is empty" if not text.strip() else "it is too long",
            hint=hint,
        )
    return " ".join(text.split())  # the API takes one line, whatever an editor made of it
