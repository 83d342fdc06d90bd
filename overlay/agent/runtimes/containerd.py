"""Find a container of containerd, by the state that its runtime keeps on disk.

containerd keeps a folder for each task (a container that runs, or has ended and was not removed),
with the process id of its first process. Containers without a task are only in its database, which
`ctr` queries. Everything here blocks; the agent calls it in a thread.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from overlay.agent.runtimes.engines import ID_PREFIX_LENGTH_MIN, EngineContainer
from overlay.agent.runtimes.program import run_program
from overlay.errors import ConflictError, OverlayError

STATE_DIRS: Final = (Path("/run/containerd"), Path("/run/k3s/containerd"))
DEFAULT_NAMESPACE: Final = "default"
_TASKS: Final = "io.containerd.runtime.v2.task"
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_ID_PREFIX: Final = re.compile(rf"[0-9a-f]{{{ID_PREFIX_LENGTH_MIN},64}}")
_ID_LENGTH: Final = 64  # of ids that are no names
_CONNECT_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Task:
    """The folder of one task."""

    folder: Path
    namespace: str
    container_id: str

    @property
    def full_id(self) -> str:
        """Return the id with its namespace."""
        return f"{self.namespace}/{self.container_id}"


class ContainerdEngine:
    """containerd: its state on disk, and `ctr` for containers that do not run."""

    kind = "containerd"
    title = "containerd"

    def __init__(
        self,
        state_dirs: tuple[Path, ...] = STATE_DIRS,
        proc: Path = Path("/proc"),
        program: str = "ctr",
    ) -> None:
        self._state_dirs = state_dirs
        self._proc = proc
        self._program = program

    def absence(self) -> str | None:
        """Return that containerd does not run if it has neither state nor socket."""
        if any(self._sockets()) or any(each.is_dir() for each in self._task_dirs()):
            return None
        return f"containerd is not running: no {self._state_dirs[0] / 'containerd.sock'}"

    def find(self, name: str) -> EngineContainer | None:
        """Return a container by `ID` or `NAMESPACE/ID`; a prefix is enough for a long id.

        Raises ConflictError if it is ambiguous, OverlayError if containerd does not answer.
        """
        namespace, _, container_id = name.rpartition("/")
        if not _WORD.fullmatch(container_id) or (namespace and not _WORD.fullmatch(namespace)):
            return None
        found = list(self._tasks(namespace, container_id))
        exact = [task for task in found if task.container_id == container_id]
        found = exact or found
        if len(found) > 1:
            candidates = sorted(f"containerd:{task.full_id}" for task in found)
            raise ConflictError(
                f"containerd container {name!r} is ambiguous",
                why=f"candidates: {', '.join(candidates)}",
                hint=f"Use one of them, for example {candidates[0]}",
            )
        if found:
            pid = self.first_process(found[0])
            return _container(found[0].namespace, found[0].container_id, pid, "stopped")
        return self._without_task(namespace, container_id)

    def task(self, namespace: str, container_id: str) -> Task | None:
        """Return the task of a container, or None."""
        found = self._tasks(namespace, container_id)
        return next((task for task in found if task.container_id == container_id), None)

    def first_process(self, task: Task) -> int | None:
        """Return the first process of a task, or None if it has ended.

        The file outlives the process, and pids are reused: the process must be in the container's
        cgroup, or be a child of the shim of the container or of its pod.
        """
        try:
            pid = int((task.folder / "init.pid").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None
        own = self._proc / str(pid)
        in_cgroup = re.compile(rf"[/:-]{re.escape(task.container_id)}(\.scope)?(/|$)", re.MULTILINE)
        try:
            if in_cgroup.search((own / "cgroup").read_text("ascii", errors="replace")):
                return pid
            # proc(5): the second field, in brackets, may have any text; the parent is the fourth.
            parent = (own / "stat").read_text("ascii", errors="replace").rpartition(")")[2]
            words = (self._proc / parent.split()[1] / "cmdline").read_bytes().split(b"\0")
        except (OSError, IndexError):
            return None
        ids = {task.container_id.encode(), _sandbox_id(task.folder).encode()} - {b""}
        return pid if ids & set(words) and task.namespace.encode() in words else None

    def _task_dirs(self) -> Iterator[Path]:
        yield from (folder / _TASKS for folder in self._state_dirs)

    def _sockets(self) -> Iterator[Path]:
        paths = (folder / "containerd.sock" for folder in self._state_dirs)
        yield from (path for path in paths if path.exists())

    def _tasks(self, namespace: str, container_id: str) -> Iterator[Task]:
        """Yield the tasks with an id, or with one that begins so, in any namespace if none."""
        pattern = f"{container_id}*" if _ID_PREFIX.fullmatch(container_id) else container_id
        for folder in self._task_dirs():
            for path in sorted(folder.glob(f"{namespace or '*'}/{pattern}")):
                if path.name == container_id or len(path.name) == _ID_LENGTH:
                    yield Task(path, path.parent.name, path.name)

    def _without_task(self, namespace: str, container_id: str) -> EngineContainer | None:
        """Ask `ctr` for a container that does not run."""
        for path in self._sockets():
            _require_listening(path)
            call = (self._program, "--address", str(path))
            listed = None if namespace else run_program(*call, "namespaces", "ls", "-q")
            names = [namespace] if namespace else [] if listed is None else listed.out.split()
            for each in names:
                words = (*call, "-n", each, "containers", "info", container_id)
                shown = run_program(*words)
                if shown is not None and shown.code == 0:
                    return _container(each, container_id, None, "created or stopped")
        return None


def _container(
    namespace: str, container_id: str, pid: int | None, otherwise: str
) -> EngineContainer:
    full_id = f"{namespace}/{container_id}"
    name = container_id if namespace == DEFAULT_NAMESPACE else full_id
    status = otherwise if pid is None else "running"
    return EngineContainer("containerd", name, full_id, pid, status)


def _sandbox_id(folder: Path) -> str:
    """Return the id of the pod that a container of Kubernetes is in, or empty."""
    try:
        annotations = json.loads((folder / "config.json").read_bytes()).get("annotations") or {}
        return str(annotations.get("io.kubernetes.cri.sandbox-id") or "")
    except (OSError, ValueError, AttributeError):
        return ""


def _require_listening(path: Path) -> None:
    """Raise OverlayError if nobody listens on a socket: `ctr` would wait for 10 s."""
    with socket.socket(socket.AF_UNIX) as trial:
        trial.settimeout(_CONNECT_S)
        try:
            trial.connect(str(path))
        except OSError as error:
            raise OverlayError(
                f"containerd does not answer on {path}",
                why=str(error),
                hint="Start it: systemctl start containerd",
            ) from error
