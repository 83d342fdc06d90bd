"""Command `reset`: remove every trace of overlayd from this host, with or without an agent.

Owns: the order (agent, kernel, files), and which directories it refuses to touch.
Does not: know overlayd's kernel objects (`overlay.kernel.reset`) or files (`overlay.own_files`).
"""

from __future__ import annotations

import fcntl
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.client import launcher
from overlay.client.api import ApiClient, JsonObject
from overlay.client.cni import files as cni_files
from overlay.client.paths import NETAVARK_PLUGIN, Paths
from overlay.docker_socket import SWARM_DRIVER, remove_plugin_socket
from overlay.errors import (
    AgentNotRunningError,
    ConflictError,
    DegradedError,
    ForbiddenError,
    OverlayError,
    TimedOutError,
    UsageError,
)
from overlay.own_files import directory, disk_errors

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup
    from overlay.core.dataplane.host_rules import ForwardingInterface

EXIT_TIMEOUT_S = 20.0
POLL_INTERVAL_S = 0.05
ANSWER_TIMEOUT_S = 1.0  # of an agent that is asked whether it has exited
# Directories that are never overlayd's own, nor is any parent of one.
NEVER_DELETED = ("/etc", "/home", "/opt", "/root", "/run", "/srv", "/usr", "/var/lib", "/var/log")


def register(words: VerbGroup) -> None:
    """Add the verb."""
    reset = words.verb(
        "reset",
        run_reset,
        "remove every trace of overlayd from this host",
        "Remove every trace of overlayd from this host: interfaces, namespaces, rules, identity\n"
        "and records.  Works without a running agent too.  The configuration file is kept.\n\n"
        "A host that is still a member leaves the cluster first; on a terminal this needs --yes.",
    )
    reset.add_argument("--yes", action="store_true", help="reset even if this host is a member")


def run_reset(args: Namespace) -> int:
    """Reset this host."""
    if os.geteuid() != 0:
        raise ForbiddenError("only root may reset this host", hint="Use sudo")
    paths: Paths = args.paths
    if paths.fault is not None:  # which directory an agent used is not known
        raise paths.fault
    for folder in (paths.state_dir, paths.run_dir):
        refuse_to_delete(folder)
    client = ApiClient(paths)
    alive = client.answers()
    if not args.yes and sys.stdin.isatty():
        _refuse_member(client, paths, alive=alive)
    done = _reset_by_agent(client, paths) if alive else {}
    # An agent knows its own objects; without one, everything with overlayd's marks is removed.
    removed = [] if done.get("cleared") else _remove_from_kernel(paths.run_dir)
    kept = _delete_files(paths, removed)
    remaining: list[str] = []
    removed += _remove_networks_from_docker(remaining)
    removed += remove_plugin_socket()
    removed += [str(path) for path in cni_files.uninstall(None, cni_files.CniPlaces())]
    removed += [str(NETAVARK_PLUGIN)] if launcher.uninstall(NETAVARK_PLUGIN) else []
    removed += _remove_from_docker(remaining)
    unknown = _unknown_of_docker()
    if done.get("fault"):
        output.warn(
            f"this host could not leave its cluster: {done['fault']}",
            "Its members see it as dead; on one of them: sudo overlayd forget --powered-off NAME",
        )
    if done.get("authority_lost"):
        output.warn(
            "no live member of this host's cluster holds its authority",
            "On any member, with an exported copy: sudo overlayd authority import FILE",
        )
    if args.json:
        shape: JsonObject = {
            "schema": "overlayd.reset/v1",
            "left": False,
            "cleared": False,
            "authority_lost": False,
            "fault": None,
        }
        found: JsonObject = {"removed": removed, "remaining": remaining, "kept": kept}
        output.print_json({**shape, **done, **found})
    else:
        for thing in removed:
            output.print_note(f"removed {thing}")
        output.print_note(
            f"still on this host: {', '.join(remaining)}"
            if remaining
            else f"no trace of overlayd is left on this host{unknown}"
        )
    return DegradedError.exit_code if remaining else 0


def _refuse_member(client: ApiClient, paths: Paths, *, alive: bool) -> None:
    """Raise ConflictError for a member: the user may have meant another host."""
    if alive:
        cluster = client.get("/v1/status")["cluster"]
        if cluster is None:
            return
        what = f"this host is still a member of cluster {cluster['id']}"
    else:
        try:
            if not directory.contents(paths.state_dir, paths.run_dir).own:
                return
        except OSError:
            return
        what = f"no agent runs, but {paths.state_dir} holds this node's identity and records"
    raise ConflictError(
        what, why="a reset cannot be undone", hint="sudo overlayd reset --yes, or leave first"
    )


def _reset_by_agent(client: ApiClient, paths: Paths) -> JsonObject:
    """Make the agent clean up and exit; return its answer, empty if it gave none.

    Raises TimedOutError if it does not exit: nothing may be deleted under it.
    """
    failure: OverlayError | None = None
    try:
        done = client.post("/v1/reset")
    except (AgentNotRunningError, TimedOutError) as error:
        done, failure = {}, error
    timeout_s = EXIT_TIMEOUT_S if paths.timeout_s is None else paths.timeout_s
    deadline = time.monotonic() + timeout_s
    while _listens(paths) or _is_held(paths.state_dir):
        if time.monotonic() >= deadline:
            raise _not_exited(paths, timeout_s, failure)
        time.sleep(POLL_INTERVAL_S)
    if failure is not None:
        output.warn(f"continuing the reset without the agent: {failure.what}")
    return done


def _listens(paths: Paths) -> bool:
    """Return whether an agent has its socket; one that hangs has it, too."""
    try:
        return ApiClient(paths, ANSWER_TIMEOUT_S).answers()
    except TimedOutError:
        return True


def _not_exited(paths: Paths, timeout_s: float, failure: OverlayError | None) -> TimedOutError:
    holder = _holder(paths.state_dir)
    why = f"it still holds its socket or state after {timeout_s:g} s"
    if failure is not None:
        why = f"{failure.what} ({failure.why}), and {why}" if failure.why else failure.what
    stop = f"kill -KILL {holder}" if holder else "end its process"
    return TimedOutError(
        f"the agent did not exit{f': process {holder}' if holder else ''}; nothing was removed",
        why=why,
        hint=f"Stop it, which loses no packet (systemctl stop overlayd; without systemd: {stop}), "
        "then again: sudo overlayd reset",
    )


def _holder(state_dir: Path) -> str:
    """Return the id of the process that the lock file names; empty if there is none."""
    from overlay.agent.process.config import LOCK_NAME  # noqa: PLC0415  imports tomllib

    try:
        with (state_dir / LOCK_NAME).open("rb") as file:
            written = file.read(20).decode("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return written if written.isdecimal() and Path("/proc", written).exists() else ""


def _is_held(state_dir: Path) -> bool:
    """Return whether an agent still has its state directory open, and may write to it."""
    from overlay.agent.process.config import LOCK_NAME  # noqa: PLC0415  imports tomllib

    try:
        with (state_dir / LOCK_NAME).open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except FileNotFoundError:
        return False
    except OSError:
        return True
    return False


def _remove_from_kernel(run_dir: Path) -> list[str]:
    from overlay.kernel.gate import loopback  # noqa: PLC0415  slow to import
    from overlay.kernel.host import ip_forwarding  # noqa: PLC0415
    from overlay.kernel.nft.host.opened_interfaces import read_opened  # noqa: PLC0415
    from overlay.kernel.reset import remove_everything  # noqa: PLC0415

    guarded: set[ForwardingInterface] = set()
    with suppress(OSError):  # then `remove_everything` reports it
        guarded.update(*read_opened().values())
    restored = ip_forwarding.restore_sysctls(run_dir, guarded=guarded)
    removed = remove_everything()
    restored += loopback.restore_left(run_dir)
    return [*removed, *(f"overlayd's setting of net/{name}" for name in restored)]


def _remove_networks_from_docker(remaining: list[str]) -> list[str]:
    """Remove the networks that overlayd made in Docker; warn about those that remain."""
    from overlay.client import docker_networks  # noqa: PLC0415  slow to import

    try:
        left = docker_networks.remove_made()
    except OverlayError as error:
        output.warn(f"networks that overlayd made may stay in Docker: {error}")
        remaining.append("perhaps networks in Docker")
        return []
    remaining += [f"Docker's network {name}" for name, _ in left.in_use]
    remaining += [f"Docker's network {name}" for name in left.users]
    for name, containers in left.in_use:
        output.warn(
            f"Docker's network {name} stays: it is used by {', '.join(containers)}",
            f"docker rm -f {' '.join(containers)}, and then again: sudo overlayd reset",
        )
    if left.users:
        output.warn(
            f"Docker still has networks with overlayd's driver, made by a user: "
            f"{', '.join(left.users)}",
            f"docker network rm {' '.join(left.users)}; where Docker cannot, without the driver, "
            "start an agent for it: sudo overlayd agent",
        )
    return [f"Docker's network {name}" for name in left.removed]


def _remove_from_docker(remaining: list[str]) -> list[str]:
    from overlay.client import docker_plugin  # noqa: PLC0415  slow to import

    try:
        return [f"Docker's plugin {SWARM_DRIVER}"] if docker_plugin.uninstall() else []
    except OverlayError as error:
        output.warn(f"Docker's plugin {SWARM_DRIVER} stays: {error.what}", error.hint or "")
        remaining.append(f"Docker's plugin {SWARM_DRIVER}")
        return []


def _unknown_of_docker() -> str:
    """Return what cannot be said of a Docker that does not run, and tell what to do."""
    from overlay.client import docker_plugin  # noqa: PLC0415  slow to import

    if not docker_plugin.is_stopped():
        return ""
    output.warn(
        f"Docker does not run: what it has of overlayd's (networks, the plugin {SWARM_DRIVER}) "
        "is not known",
        "If you used them: sudo systemctl start docker, and then again: sudo overlayd reset",
    )
    return ", except in Docker, if it has any"


def refuse_to_delete(folder: Path) -> None:
    """Raise UsageError if a mistyped option would delete more than overlayd's files."""
    resolved = folder.resolve()
    precious = [*(Path(text).resolve() for text in NEVER_DELETED), Path.home().resolve()]
    if any(resolved in (other, *other.parents) for other in precious) or len(resolved.parts) < 3:
        raise UsageError(
            f"refusing to delete {folder}: it is not overlayd's own directory",
            hint="Check --state-dir and --run-dir",
        )


def _delete_files(paths: Paths, removed: list[str]) -> list[str]:
    """Delete overlayd's files, add the directories to `removed`, and return what stays in them."""
    kept = []
    # A directory within the other goes first, so that the other can go, too.
    for folder in sorted(
        dict.fromkeys((paths.run_dir, paths.state_dir)), key=lambda each: -len(each.parts)
    ):
        try:
            is_deleted, others = directory.delete_own(folder, paths.run_dir, paths.state_dir)
        except OSError as error:
            raise OverlayError(
                f"cannot delete overlayd's files in {folder}",
                why=str(error),
                hint=f"{disk_errors.hint(error, folder)}. Then again: sudo overlayd reset",
            ) from error
        if is_deleted:
            removed.append(f"overlayd's files in {folder}" if others else str(folder))
        if others:
            kept += [str(folder / name) for name in others]
            output.warn(
                f"{folder} stays, with what is not overlayd's: {directory.listing(others)}",
                f"It is yours to keep or to delete: ls -la {folder}",
            )
    return kept
