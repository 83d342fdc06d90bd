"""The verb reset: nothing of overlayd is left on this host, whether its agent lives or not.

Owns: the order (agent, kernel, files), and which directories it refuses to delete. Must not
know what our traces in the kernel look like: `overlay.kernel.reset` does.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.client.api import ApiClient
from overlay.client.paths import Paths
from overlay.errors import (
    AgentNotRunningError,
    ConflictError,
    ForbiddenError,
    OverlayError,
    TimedOutError,
    UsageError,
)

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

EXIT_TIMEOUT_S = 20.0
POLL_INTERVAL_S = 0.05
# Directories that a mistyped --state-dir must not delete, nor any directory above one of them.
NEVER_DELETED = ("/etc", "/home", "/opt", "/root", "/run", "/srv", "/usr", "/var/lib", "/var/log")


def register(words: VerbGroup) -> None:
    """Add the verb."""
    reset = words.verb(
        "reset",
        run_reset,
        "remove everything of overlayd from this host",
        "Remove everything of overlayd from this host: interfaces, namespaces, rules, identity\n"
        "and records.  It works with a dead agent too.  The configuration file stays.\n\n"
        "A host that is still a member leaves first; on a terminal that needs --yes.",
    )
    reset.add_argument("--yes", action="store_true", help="yes, although it is still a member")


def run_reset(args: Namespace) -> int:
    """Reset this host."""
    if os.geteuid() != 0:
        raise ForbiddenError("only root may reset this host", hint="Use sudo")
    paths: Paths = args.paths
    for folder in (paths.state_dir, paths.run_dir):
        refuse_to_delete(folder)
    client = ApiClient(paths)
    alive = client.answers()
    if not args.yes and sys.stdin.isatty():
        _refuse_member(client, paths, alive=alive)
    by_agent = _reset_by_agent(client, paths) if alive else False
    # An agent knows what is its own; without one, all that bears our marks goes.
    removed = [] if by_agent else _remove_from_kernel(paths.run_dir)
    removed += [str(folder) for folder in (paths.run_dir, paths.state_dir) if delete_tree(folder)]
    if args.json:
        output.print_json({"schema": "overlayd.reset/v1", "by_agent": by_agent, "removed": removed})
        return 0
    for thing in removed:
        output.print_note(f"removed {thing}")
    output.print_note("nothing of overlayd is left on this host")
    return 0


def _refuse_member(client: ApiClient, paths: Paths, *, alive: bool) -> None:
    """On a terminal, a person may have meant another host."""
    if alive:
        cluster = client.get("/v1/status")["cluster"]
        if cluster is None:
            return
        what = f"this host is still a member of cluster {cluster['id']}"
    else:
        try:
            if not any(paths.state_dir.iterdir()):
                return
        except OSError:
            return
        what = f"no agent runs, but {paths.state_dir} holds this node's identity and records"
    raise ConflictError(
        what, why="a reset can't be undone", hint="sudo overlayd reset --yes, or leave first"
    )


def _reset_by_agent(client: ApiClient, paths: Paths) -> bool:
    """Have the agent undo its work and end; say whether it did both."""
    try:
        done = bool(client.post("/v1/reset").get("cleared", True))
    except (AgentNotRunningError, TimedOutError) as error:
        output.warn(f"the agent did not finish its reset, so it is done without it: {error.what}")
        done = False
    deadline = time.monotonic() + EXIT_TIMEOUT_S
    while client.answers() or _is_held(paths.state_dir):
        if time.monotonic() >= deadline:
            raise TimedOutError(
                "the agent does not end",
                why=f"it still holds its socket or state after {EXIT_TIMEOUT_S:.0f} s",
                hint="Stop it (systemctl stop overlayd, or kill), then: sudo overlayd reset",
            )
        time.sleep(POLL_INTERVAL_S)
    return done


def _is_held(state_dir: Path) -> bool:
    """Say whether an agent still has its state directory open: its last writes are to come."""
    from overlay.agent.process.config import LOCK_NAME  # noqa: PLC0415  reads TOML: not for every verb

    try:
        with (state_dir / LOCK_NAME).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _remove_from_kernel(run_dir: Path) -> list[str]:
    from overlay.kernel.host import ip_forwarding  # noqa: PLC0415  dear to import
    from overlay.kernel.reset import remove_everything  # noqa: PLC0415

    restored = [f"our setting of net/{name}" for name in ip_forwarding.restore_sysctls(run_dir)]
    return [*remove_everything(), *restored]


def refuse_to_delete(folder: Path) -> None:
    """Raise UsageError where a mistyped option would delete far more than ours."""
    resolved = folder.resolve()
    precious = [*(Path(text).resolve() for text in NEVER_DELETED), Path.home().resolve()]
    if any(resolved in (other, *other.parents) for other in precious) or len(resolved.parts) < 3:
        raise UsageError(
            f"{folder} is not a directory of overlayd's own; it will not be deleted",
            hint="Check --state-dir and --run-dir",
        )


def delete_tree(folder: Path) -> bool:
    """Delete a directory with all in it; say whether there was one."""
    if not folder.is_dir():
        return False
    try:
        if folder.is_mount():  # a container's or a lab's own mount can only be emptied
            for entry in folder.iterdir():
                if entry.is_dir() and not entry.is_symlink():
                    shutil.rmtree(entry)
                else:
                    entry.unlink()
        else:
            shutil.rmtree(folder)
    except OSError as error:
        raise OverlayError(f"cannot delete {folder}", why=str(error)) from error
    return True
