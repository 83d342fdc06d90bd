"""Checks of this host that need no agent: configuration, state directory, disk, start at boot."""

from __future__ import annotations

import errno
import os
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from overlay import limits
from overlay.cli import output
from overlay.cli.checks.evidence import Finding
from overlay.own_files import directory, disk_errors, names, refusal

if TYPE_CHECKING:
    from collections.abc import Iterator

    from overlay.cli.checks.evidence import Evidence

_WANTED = Path("/etc/systemd/system/multi-user.target.wants/overlayd.service")
_MIB = 2**20


def check_configuration(evidence: Evidence) -> Iterator[Finding]:
    """Check the file, and that the agent has read what it holds now."""
    from overlay.agent.process.config import read  # noqa: PLC0415  imports tomllib

    path, status = evidence.paths.config, evidence.status
    found = read(path)
    for error in found.errors:
        said = f"{error.what}: {error.why}" if error.why else error.what
        remedy = error.hint or f"Correct the file, then: overlayd config check {path}"
        yield Finding("error", "configuration", said, remedy)
    if found.errors:
        return
    if found.exists and status is not None and _changed_s(path) > time.time() - status["uptime_s"]:
        yield Finding(
            "note",
            "configuration",
            f"{path} was changed after the agent's start",
            "log_level applies after: sudo systemctl reload overlayd; all other keys after: sudo "
            "systemctl restart overlayd   (loses no packet)",
        )
    text = "no errors" if found.exists else "no such file: all keys have defaults"
    yield Finding("ok", "configuration", f"{path}: {text}")


def check_state_directory(evidence: Evidence) -> Iterator[Finding]:
    """Check that the directory with this node's keys is there and root's alone."""
    path = evidence.state_dir
    try:
        found = path.stat()
    except FileNotFoundError:
        if path.is_symlink():
            text, remedy = f"{path} is {disk_errors.kind(path)}", refusal.link_advice(path)
            yield Finding("error", "state", text, remedy)
        elif evidence.status is not None:
            yield _lost_state(path)
        else:
            yield Finding("note", "state", f"there is no {path}: this host was never in a cluster")
        return
    except OSError as error:
        remedy = disk_errors.hint(error, path)
        yield Finding("error", "state", f"cannot read {path}: {error.strerror}", remedy)
        return
    if not stat.S_ISDIR(found.st_mode):
        text = f"{path} is {disk_errors.kind(path)}"
        remedy = disk_errors.hint(NotADirectoryError(errno.ENOTDIR, text, str(path)), path)
        yield Finding("error", "state", text, remedy)
        return
    if evidence.status is not None and not (path / names.STATE_FILE).exists():
        yield _lost_state(path / names.STATE_FILE)
        return
    yield _state_finding(path, found, evidence.paths.run_dir)


def _state_finding(path: Path, found: os.stat_result, run_dir: Path) -> Finding:
    mode = stat.S_IMODE(found.st_mode)
    try:
        held = directory.contents(path, run_dir)
        owners = {each.lstat().st_uid for each in held.own} | {found.st_uid}
    except OSError:  # only root may look into it
        held, owners = directory.Contents((), (), (), is_marked=False), {found.st_uid}
    if why := refusal.foreign_text(path, held):
        return Finding(
            "error", "state", f"{path} is not overlayd's: {why}", refusal.advice("state")
        )
    if owners == {0} and not mode & 0o077:
        return Finding("ok", "state", f"{path} is root's alone")
    if not directory.is_ours(path, held):
        return Finding("note", "state", f"{path} holds nothing of overlayd's yet")
    user = ", ".join(str(each) for each in sorted(owners))
    return Finding(
        "error",
        "state",
        f"{path} and overlayd's files in it belong to user {user}, and it has mode {mode:04o}: "
        "others may read this node's keys",
        disk_errors.owner_command(path, held),
    )


def _lost_state(path: Path) -> Finding:
    return Finding(
        "error",
        "state",
        f"{path} is gone, but the agent runs",
        "Do not restart the agent: only it still has the state, and writes it anew within seconds. "
        "If this stays, free space or make the disk writable; overlayd status says what it lacks",
    )


class _Space(NamedTuple):
    """The free space on the disk of a directory."""

    path: Path  # the directory, or the nearest above it that exists
    read_only: bool
    free: int  # bytes
    files_free: int | None  # None: the file system has no such limit


def check_disk(evidence: Evidence) -> Iterator[Finding]:
    """Check that the agent can write its state and its run directory."""
    free = []
    for name, path in (("state", evidence.state_dir), ("run", evidence.paths.run_dir)):
        found = _space(path)
        if found is None:
            continue
        what = f"the {name} directory {path}"
        if found.read_only:
            yield Finding(
                "error",
                "disk",
                f"{what} is on a read-only file system: attach and detach fail",
                f"See why: dmesg; then: mount -o remount,rw {_mount_of(found.path)}",
            )
        elif found.free < limits.DISK_FREE_MIN:
            yield Finding(
                "warn",
                "disk",
                f"{what} has {found.free // _MIB} MiB left: a full disk refuses attach and detach",
                f"Free space on {_mount_of(found.path)}: du -xh --max-depth=2 "
                f"{_mount_of(found.path)} | sort -h",
            )
        elif found.files_free is not None and found.files_free < limits.DISK_FILES_FREE_MIN:
            yield Finding(
                "warn",
                "disk",
                f"{what} has room for {output.count_text(found.files_free, 'file')} more",
                f"Remove files on {_mount_of(found.path)}: df -i",
            )
        else:
            free.append(f"{path} has {found.free // _MIB} MiB free")
    if free:
        yield Finding("ok", "disk", ", ".join(free))


def check_start_at_boot(evidence: Evidence) -> Iterator[Finding]:
    """Check that systemd starts the agent of a member when the host boots."""
    from overlay.cli.agent_start import unit_installed  # noqa: PLC0415  imports subprocess

    if evidence.paths.chosen or not unit_installed():
        return  # somebody else starts it: a container engine, another init system
    if _WANTED.is_symlink():
        yield Finding("ok", "boot", "systemd starts the agent when the host boots")
    elif evidence.is_joined:
        yield Finding(
            "warn",
            "boot",
            "the agent does not start when this host boots",
            "sudo systemctl enable overlayd",
        )


def _space(path: Path) -> _Space | None:
    for each in (path, *path.parents):
        try:
            found = os.statvfs(each)
        except FileNotFoundError:
            continue
        except OSError:
            return None
        return _Space(
            each,
            bool(found.f_flag & os.ST_RDONLY),
            found.f_bavail * found.f_frsize,
            found.f_favail if found.f_files else None,
        )
    return None


def _mount_of(path: Path) -> Path:
    return next((each for each in (path, *path.parents) if each.is_mount()), path)


def _changed_s(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except OSError:
        return 0.0
