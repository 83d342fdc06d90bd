"""Finding a container and its process in the container runtimes of this host.

Owns: how Docker and Podman are asked. Docker answers on its API socket. Podman has no daemon:
its state on disk is read first (no socket activation, no process), then its API socket is
asked, then `podman inspect`. Must not know what a target is or what is done with a process.
All of it blocks; the agent calls it in a thread.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import quote

from overlay.errors import ConflictError, OverlayError
from overlay.unix_http import HTTPException, UnixConnection, send

DOCKER_SOCKET = Path("/var/run/docker.sock")
PODMAN_SOCKET = Path("/run/podman/podman.sock")
STORAGE_CONFIGS = (Path("/etc/containers/storage.conf"), Path("/usr/share/containers/storage.conf"))
GRAPH_ROOT = Path("/var/lib/containers/storage")
RUN_ROOT = Path("/run/containers/storage")

ANSWER_TIMEOUT_S = 5.0
INSPECT_TIMEOUT_S = 15.0
ANSWER_SIZE_MAX = 16 * 1024 * 1024
# Shorter ones are too likely to be meant as names.
ID_PREFIX_LENGTH_MIN = 4
_ID_PREFIX = re.compile(rf"[0-9a-f]{{{ID_PREFIX_LENGTH_MIN},64}}")


@dataclass(frozen=True, slots=True)
class EngineContainer:
    """A container as its runtime describes it; `pid` is None unless it runs."""

    kind: str
    name: str
    container_id: str
    pid: int | None
    status: str


class Engine(Protocol):
    """Something that runs containers."""

    kind: str
    title: str

    def find(self, name: str) -> EngineContainer | None:
        """Return the container of that name or id, or None; raises OverlayError if it can't say."""

    def absence(self) -> str | None:
        """Return why this runtime has no containers here at all, or None where it may have."""


class DockerEngine:
    """A Docker engine, asked on its API socket."""

    kind = "docker"
    title = "Docker"

    def __init__(self, socket: Path = DOCKER_SOCKET) -> None:
        self._socket = socket

    def absence(self) -> str | None:
        """Return that there is no socket, if there is none."""
        return None if self._socket.exists() else f"Docker does not run here: no {self._socket}"

    def find(self, name: str) -> EngineContainer | None:
        """Ask the engine; raises OverlayError where it is there but does not answer."""
        return _inspect_by_socket(self._socket, name, self.kind, self.title)


class PodmanEngine:
    """Podman's containers of root, from its state on disk, its socket or its program."""

    kind = "podman"
    title = "Podman"

    def __init__(
        self,
        socket: Path = PODMAN_SOCKET,
        roots: tuple[Path, Path] | None = None,
        proc: Path = Path("/proc"),
        program: str = "podman",
    ) -> None:
        self._socket = socket
        self._roots = roots
        self._proc = proc
        self._program = program

    def absence(self) -> str | None:
        """Return that there is neither state nor socket, if so."""
        graph_root, _ = self._roots or storage_roots()
        if self._socket.exists() or any(_container_files(graph_root)):
            return None
        return f"Podman has no containers here: nothing in {graph_root}, no {self._socket}"

    def find(self, name: str) -> EngineContainer | None:
        """Look on disk, then ask whatever else can tell."""
        graph_root, run_root = self._roots or storage_roots()
        stored = _stored_container([graph_root, run_root], name)
        if stored is None:
            return _inspect_by_socket(self._socket, name, self.kind, self.title)
        container_id, stored_name = stored
        for path in sorted(run_root.glob(f"*-containers/{container_id}/userdata/pidfile")):
            pid = _pid_in(path)
            if pid is not None and belongs_to(pid, container_id, self._proc):
                return EngineContainer(self.kind, stored_name, container_id, pid, "running")
        found = _inspect_by_socket(self._socket, container_id, self.kind, self.title)
        found = found or self._inspect_by_program(container_id)
        return found or EngineContainer(self.kind, stored_name, container_id, None, "not running")

    def _inspect_by_program(self, container_id: str) -> EngineContainer | None:
        program = shutil.which(self._program)
        if program is None:
            return None
        try:
            done = subprocess.run(
                [program, "inspect", "--type", "container", "--format", "json", container_id],
                capture_output=True,
                timeout=INSPECT_TIMEOUT_S,
                check=False,
                stdin=subprocess.DEVNULL,
            )
            return (
                _container(self.kind, json.loads(done.stdout)[0]) if not done.returncode else None
            )
        except (OSError, subprocess.TimeoutExpired, ValueError, LookupError):
            return None


def storage_roots() -> tuple[Path, Path]:
    """Return containers-storage's graph root and run root, as configured for root."""
    for path in STORAGE_CONFIGS:
        try:
            storage = tomllib.loads(path.read_text(encoding="utf-8")).get("storage", {})
        except (OSError, ValueError):
            continue
        return (
            Path(storage.get("graphroot") or GRAPH_ROOT),
            Path(storage.get("runroot") or RUN_ROOT),
        )
    return GRAPH_ROOT, RUN_ROOT


def belongs_to(pid: int, container_id: str, proc: Path = Path("/proc")) -> bool:
    """Say whether process `pid` is of this container.

    A pid file outlives its process, and pids come round again: the process must be in the
    container's cgroup, or the child of its conmon.
    """
    own = proc / str(pid)
    try:
        if container_id in (own / "cgroup").read_text(encoding="ascii", errors="replace"):
            return True
        # proc(5): the second field, in brackets, may hold anything; the parent is the fourth.
        parent = (own / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2]
        command = (proc / parent.split()[1] / "cmdline").read_bytes()
    except (OSError, IndexError):
        return False
    return container_id.encode() in command.split(b"\0")


def _container_files(root: Path) -> Iterator[Path]:
    """Yield the lists of containers below a root, of whatever storage driver."""
    yield from sorted(root.glob("*-containers/containers.json"))
    yield from sorted(root.glob("*-containers/volatile-containers.json"))


def _stored_container(roots: list[Path], wanted: str) -> tuple[str, str] | None:
    """Return (id, name) of a container by name, or by the beginning of its id."""
    by_id: dict[str, str] = {}
    for path in (path for root in roots for path in _container_files(root)):
        try:
            listed = json.loads(path.read_bytes())
            found = {item["id"]: [str(name) for name in item.get("names") or []] for item in listed}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue  # written this moment, or not a list of containers: the others can tell
        for container_id, names in found.items():
            if wanted in names:
                return container_id, wanted
            if _ID_PREFIX.fullmatch(wanted) and container_id.startswith(wanted):
                by_id[container_id] = names[0] if names else container_id[:12]
    if len(by_id) > 1:
        raise ConflictError(
            f"{wanted!r} is the beginning of {len(by_id)} Podman containers' ids",
            why=", ".join(sorted(by_id.values())),
            hint="Give the name, or more of the id",
        )
    return next(iter(by_id.items()), None)


def _pid_in(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _inspect_by_socket(socket: Path, name: str, kind: str, title: str) -> EngineContainer | None:
    """Ask for one container; Podman speaks Docker's path and answer too, at no version."""
    if not socket.exists():
        return None
    connection = UnixConnection(str(socket), ANSWER_TIMEOUT_S)
    try:
        with send(connection, "GET", f"/containers/{quote(name, safe='')}/json") as response:
            raw = response.read(ANSWER_SIZE_MAX)
    except (OSError, HTTPException) as error:
        raise OverlayError(
            f"{title} does not answer on {socket}",
            why=str(error) or type(error).__name__,
            hint="Name the process instead, by pid:N, or restart it",
        ) from error
    finally:
        connection.close()
    if response.status == HTTPStatus.NOT_FOUND:
        return None
    try:
        answer = json.loads(raw)
        if response.status == HTTPStatus.OK:
            return _container(kind, answer)
        said = str(answer["message"])
    except (ValueError, LookupError, TypeError) as error:
        raise OverlayError(
            f"cannot read {title}'s answer on {socket}", why=f"HTTP {response.status}: {error}"
        ) from error
    if response.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT):
        raise ConflictError(f"{title} does not know which container {name!r} is", why=said)
    raise OverlayError(f"{title} refuses to tell about {name!r}", why=said)


def _container(kind: str, answer: Any) -> EngineContainer:
    state = answer["State"]
    pid = int(state["Pid"])
    return EngineContainer(
        kind=kind,
        name=str(answer["Name"]).removeprefix("/"),
        container_id=str(answer["Id"]),
        pid=pid if pid > 0 else None,
        status=str(state["Status"]),
    )
