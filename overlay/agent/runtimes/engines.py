"""Find a container and its process in the container runtimes of this host.

Owns: the queries to Docker and Podman. Docker answers on its API socket. Podman has no daemon:
first its state on disk is read (which starts no process and activates no socket), then its API
socket is queried, then `podman inspect`. Everything here blocks; the agent calls it in a thread.
Does not: know targets, or what a process is needed for.
"""

from __future__ import annotations

import contextlib
import ipaddress
import json
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from typing import Any, Protocol

from overlay import limits
from overlay.errors import ConflictError, OverlayError
from overlay.unix_http import HttpError, UnixConnection, quote, send

DOCKER_SOCKET = Path("/var/run/docker.sock")
PODMAN_SOCKET = Path("/run/podman/podman.sock")
STORAGE_CONFIGS = (Path("/etc/containers/storage.conf"), Path("/usr/share/containers/storage.conf"))
GRAPH_ROOT = Path("/var/lib/containers/storage")
RUN_ROOT = Path("/run/containers/storage")

ANSWER_TIMEOUT_S = 5.0
INSPECT_TIMEOUT_S = 15.0
REQUEST_TIMEOUT_S = 40.0  # Docker calls overlayd's plugin meanwhile, for up to 30 s
ANSWER_SIZE_MAX = 16 * 1024 * 1024
# A shorter prefix is more likely a name.
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
    disables_ipv6: bool = False  # its configuration does; Docker itself does in every container
    resolvers: tuple[str, ...] = ()  # of --dns


class Engine(Protocol):
    """A container runtime."""

    kind: str
    title: str

    def find(self, name: str) -> EngineContainer | None:
        """Return the container with a name or id, or None.

        Raises OverlayError if the runtime cannot tell.
        """

    def absence(self) -> str | None:
        """Return why this runtime has no containers on this host; None if it may have some."""


class DockerEngine:
    """The Docker engine, queried on its API socket."""

    kind = "docker"
    title = "Docker"

    def __init__(self, socket: Path = DOCKER_SOCKET) -> None:
        self._socket = socket

    def absence(self) -> str | None:
        """Return that Docker is not running if its socket does not exist."""
        return None if self._socket.exists() else f"Docker is not running: no {self._socket}"

    def find(self, name: str) -> EngineContainer | None:
        """Query the engine; raises OverlayError if its socket exists but it does not answer."""
        return _inspect_by_socket(self._socket, name, self.kind, self.title)


class PodmanEngine:
    """Podman, run by root: its state on disk, its API socket and its program."""

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
        """Return that Podman has no containers if there is neither state nor socket."""
        graph_root, _ = self._roots or storage_roots()
        if self._socket.exists() or any(_container_files(graph_root)):
            return None
        return f"Podman has no containers: nothing in {graph_root}, and no {self._socket}"

    def find(self, name: str) -> EngineContainer | None:
        """Read the state on disk, then query the socket and the program if that is not enough."""
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
    """Return the graph root and run root of root's storage (containers-storage.conf(5))."""
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
    """Return whether process `pid` belongs to this container.

    A pid file outlives its process, and pids are reused: the process must be in the container's
    cgroup, or be a child of its conmon.
    """
    own = proc / str(pid)
    try:
        if container_id in (own / "cgroup").read_text(encoding="ascii", errors="replace"):
            return True
        # proc(5): the second field, in brackets, may have any text; the parent is the fourth.
        parent = (own / "stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2]
        command = (proc / parent.split()[1] / "cmdline").read_bytes()
    except (OSError, IndexError):
        return False
    return container_id.encode() in command.split(b"\0")


def _container_files(root: Path) -> Iterator[Path]:
    """Yield the container lists below a root, of every storage driver."""
    yield from sorted(root.glob("*-containers/containers.json"))
    yield from sorted(root.glob("*-containers/volatile-containers.json"))


def _stored_container(roots: list[Path], wanted: str) -> tuple[str, str] | None:
    """Return (id, name) of a container, found by its name or a prefix of its id."""
    by_id: dict[str, str] = {}
    for path in (path for root in roots for path in _container_files(root)):
        try:
            listed = json.loads(path.read_bytes())
            found = {item["id"]: [str(name) for name in item.get("names") or []] for item in listed}
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            continue  # just being written, or not a list of containers: use the other sources
        for container_id, names in found.items():
            if wanted in names:
                return container_id, wanted
            if _ID_PREFIX.fullmatch(wanted) and container_id.startswith(wanted):
                by_id[container_id] = names[0] if names else container_id[:12]
    if len(by_id) > 1:
        raise ConflictError(
            f"Podman container id {wanted!r} is ambiguous",
            why=f"it is a prefix for {', '.join(sorted(by_id.values()))}",
            hint="Use the container's name, or more characters of its id",
        )
    return next(iter(by_id.items()), None)


def _pid_in(path: Path) -> int | None:
    try:
        return int(path.read_text(encoding="ascii"))
    except (OSError, ValueError):
        return None


def _inspect_by_socket(socket: Path, name: str, kind: str, title: str) -> EngineContainer | None:
    """Query an API socket for one container.

    The path has no API version: Podman accepts Docker's path only without one.
    """
    if not socket.exists():
        return None
    connection = UnixConnection(str(socket), ANSWER_TIMEOUT_S)
    try:
        with send(connection, "GET", f"/containers/{quote(name)}/json") as response:
            raw = response.read(ANSWER_SIZE_MAX)
    except (OSError, HttpError) as error:
        raise OverlayError(
            f"{title} does not answer on {socket}",
            why=str(error) or type(error).__name__,
            hint=f"Restart {title}, or name the container's process instead: pid:N",
        ) from error
    finally:
        connection.close()
    if response.status == HTTPStatus.NOT_FOUND:
        return None
    try:
        answer = json.loads(raw)
        if response.status == HTTPStatus.OK:
            return _container(kind, answer)
        message = str(answer["message"])
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise OverlayError(
            f"cannot read {title}'s answer on {socket}",
            why=f"HTTP {response.status}: {error}",
            hint=f"Ask it yourself: {kind} inspect {name}",
        ) from error
    if response.status in (HTTPStatus.BAD_REQUEST, HTTPStatus.CONFLICT):
        raise ConflictError(
            f"{title} cannot tell which container {name!r} is",
            why=message,
            hint="Use its whole name or id",
        )
    raise OverlayError(
        f"{title} rejected the query for container {name!r}",
        why=message,
        hint=f"Ask it yourself: {kind} inspect {name}",
    )


def query_docker(
    path: str, socket: Path = DOCKER_SOCKET, timeout_s: float = ANSWER_TIMEOUT_S
) -> Any:
    """Return Docker's answer to a GET of its API; None if it has no such thing.

    Blocks. Raises OverlayError if it does not answer.
    """
    return request_docker("GET", path, socket=socket, timeout_s=timeout_s)


def request_docker(
    method: str,
    path: str,
    body: Any = None,
    *,
    socket: Path = DOCKER_SOCKET,
    timeout_s: float = REQUEST_TIMEOUT_S,
) -> Any:
    """Return Docker's answer to a request of its API; None if it has no such thing.

    Blocks. Raises OverlayError if it refuses or does not answer.
    """
    connection = UnixConnection(str(socket), timeout_s)
    content = None if body is None else json.dumps(body).encode()
    try:
        with send(connection, method, path, content) as response:
            raw = response.read(ANSWER_SIZE_MAX)
        if response.status == HTTPStatus.NOT_FOUND:
            return None
        answer = json.loads(raw or b"null")
        if response.status >= HTTPStatus.BAD_REQUEST:
            message = answer.get("message") if isinstance(answer, dict) else None
            why = str(message or f"HTTP {response.status}")
            raise OverlayError(
                f"Docker rejected {method} {path}",
                why=why,
                hint="See what Docker logged: journalctl -u docker -n 20",
            )
    except (OSError, HttpError, ValueError, RecursionError) as error:
        raise OverlayError(
            f"Docker does not answer on {socket}",
            why=str(error) or type(error).__name__,
            hint="See: systemctl status docker; attached containers stay connected",
        ) from error
    else:
        return answer
    finally:
        connection.close()


def _container(kind: str, answer: Any) -> EngineContainer:
    state = answer["State"]
    pid = int(state["Pid"])
    return EngineContainer(
        kind=kind,
        name=str(answer["Name"]).removeprefix("/"),
        container_id=str(answer["Id"]),
        pid=pid if pid > 0 else None,
        status=str(state["Status"]),
        disables_ipv6=_disables_ipv6(answer),
        resolvers=given_resolvers(answer),
    )


def given_resolvers(container: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the resolvers that a container was given (--dns), if its queries for them leave it."""
    given = (container.get("HostConfig") or {}).get("Dns") or []
    return tuple(filter(_leaves_container, map(str, given)))[: limits.DNS_SERVERS_MAX]


def _leaves_container(word: str) -> bool:
    with contextlib.suppress(ValueError):
        found = ipaddress.ip_address(word)
        return not found.is_loopback and not (found.version == 6 and found.is_link_local)
    return False


def _disables_ipv6(answer: Any) -> bool:
    """Return whether a container was started with IPv6 disabled by --sysctl."""
    settings = (answer.get("HostConfig") or {}).get("Sysctls") or {}
    return any(
        str(settings.get(f"net.ipv6.conf.{scope}.disable_ipv6", "0")) != "0"
        for scope in ("all", "default")
    )
