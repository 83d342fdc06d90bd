"""Find the container that a network namespace belongs to: the reverse of resolving a target.

Owns: the search among names, processes and container runtimes. It blocks; call it in a thread.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from overlay.agent.runtimes.targets import THIS_HOST, Target, TargetSources, resolve_target
from overlay.errors import OverlayError
from overlay.kernel.sandbox.container_namespace import OWN_NAME

_CONTAINER_ID = re.compile(r"(?<![0-9a-f])[0-9a-f]{64}(?![0-9a-f])")


def owner_of(identity: tuple[int, int], sources: TargetSources = THIS_HOST) -> Target | None:
    """Return the open target whose namespace this is, or None; the caller closes it.

    A name comes first, then a container of a runtime, then the oldest process.
    """
    for text in _candidates(identity, sources):
        try:
            target = resolve_target(text, sources)
        except OverlayError:
            continue
        if target.identity == identity:
            return target
        target.close()
    return None


def _candidates(identity: tuple[int, int], sources: TargetSources) -> Iterator[str]:
    for path in _entries(sources.netns_dir):
        if not OWN_NAME.fullmatch(path.name) and _identity(path) == identity:
            yield f"netns:{path.name}"
    pids = [
        pid
        for pid in sorted(
            int(path.name) for path in _entries(sources.proc) if path.name.isdecimal()
        )
        if _identity(sources.proc / str(pid) / "ns/net") == identity
    ]
    ids = dict.fromkeys(found for pid in pids for found in _container_ids(pid, sources.proc))
    for container_id in ids:
        for runtime in sources.runtimes:
            yield f"{runtime.kind}:{container_id}"
    yield from (f"pid:{pid}" for pid in pids)


def _container_ids(pid: int, proc: Path) -> Iterator[str]:
    """Yield what looks like a container's id in a process's cgroup and its parent's command."""
    own = proc / str(pid)
    try:
        yield from _CONTAINER_ID.findall((own / "cgroup").read_text("ascii", errors="replace"))
        # proc(5): the second field, in brackets, may have any text; the parent is the fourth.
        parent = (own / "stat").read_text("ascii", errors="replace").rpartition(")")[2].split()[1]
        command = (proc / parent / "cmdline").read_text("ascii", errors="replace")
    except (OSError, IndexError):
        return
    yield from _CONTAINER_ID.findall(command)


def _entries(directory: Path) -> list[Path]:
    try:
        return sorted(directory.iterdir())
    except OSError:
        return []


def _identity(path: Path) -> tuple[int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return (status.st_dev, status.st_ino)
