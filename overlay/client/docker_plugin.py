"""Docker's managed plugin for networks of a swarm, by Docker's API.

The plugin is a container with one program, `docker_relay`, which the host's Python runs: its root
file system has no more, and borrows the host's libraries. So it needs no registry and no image.
Owns: what the plugin consists of, and its life in Docker. Does not: print anything.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from overlay import limits
from overlay.client import docker_relay
from overlay.docker_socket import PLUGIN_DIR, SOCKET_NAME, SWARM_DRIVER
from overlay.errors import AgentNotRunningError, ConflictError, NotFoundError, OverlayError
from overlay.unix_http import HttpError, UnixConnection, quote, send

if TYPE_CHECKING:
    from collections.abc import Iterator

DOCKER_SOCKET: Final = "/var/run/docker.sock"
_NAME: Final = quote(SWARM_DRIVER)
_RELAY: Final = "relay.py"
_SOCKET: Final = "overlayd.sock"
_FOLDERS: Final = ("agent", "dev", "etc", "proc", "run/docker/plugins", "sys", "tmp", "usr")
_LINKS: Final = ("bin", "lib", "lib32", "lib64", "sbin")  # into the host's /usr
_TYPES: Final = ("docker.networkdriver/1.0", "docker.ipamdriver/1.0")


class PluginState(NamedTuple):
    """The managed plugin as Docker has it."""

    enabled: bool
    current: bool  # it is what this version of overlayd installs


def find(docker: str = DOCKER_SOCKET) -> PluginState | None:
    """Return the plugin, or None; raises OverlayError if Docker does not answer."""
    try:
        found = _request(docker, "GET", f"/plugins/{_NAME}/json")
    except NotFoundError:
        return None
    described = str(found["Config"].get("Description", ""))
    return PluginState(bool(found["Enabled"]), described == _description())


def install(docker: str = DOCKER_SOCKET, agent_dir: Path = PLUGIN_DIR) -> bool:
    """Create and enable the plugin; return False if it was there. Raises OverlayError.

    One of another version is replaced, which Docker refuses while its networks are in use.
    """
    if not (agent_dir / SOCKET_NAME).is_socket():
        raise AgentNotRunningError(
            "the agent does not serve Docker on this host",
            why=f"there is no socket {agent_dir / SOCKET_NAME}",
            hint='sudo systemctl start overlayd; its docker_plugin must not be "off"',
        )
    found = find(docker)
    if found is not None and found.current and found.enabled:
        return False
    if found is not None and not found.current:
        uninstall(docker)
        found = None
    if found is None:
        content = _archive(agent_dir)
        _request(docker, "POST", f"/plugins/create?name={_NAME}", content)
    _request(docker, "POST", f"/plugins/{_NAME}/enable?timeout=30")
    return True


def is_stopped(docker: str = DOCKER_SOCKET) -> bool:
    """Return whether Docker is installed and does not run, so that nothing is known of it."""
    return not Path(docker).exists() and shutil.which("dockerd") is not None


def uninstall(docker: str = DOCKER_SOCKET) -> bool:
    """Remove the plugin; return whether it was there. Raises ConflictError while it is in use."""
    if not Path(docker).exists():  # no Docker, or one that is stopped
        return False
    found = find(docker)
    if found is None:
        return False
    if found.enabled:
        _request(docker, "POST", f"/plugins/{_NAME}/disable")
    _request(docker, "DELETE", f"/plugins/{_NAME}")
    return True


# --- Docker's API -----------------------------------------------------------------------------


def _request(docker: str, method: str, path: str, content: bytes | None = None) -> Any:
    connection = UnixConnection(docker, limits.DOCKER_PLUGIN_TIMEOUT_S)
    try:
        with send(connection, method, path, content, "application/x-tar") as response:
            raw = response.read()
        answer = json.loads(raw) if raw else None
    except (OSError, HttpError, ValueError) as error:
        raise OverlayError(
            f"Docker does not answer on {docker}",
            why=getattr(error, "strerror", None) or str(error) or type(error).__name__,
            hint="sudo systemctl start docker",
        ) from error
    finally:
        connection.close()
    if response.status < HTTPStatus.BAD_REQUEST:
        return answer
    message = str((answer or {}).get("message") or f"HTTP {response.status}")
    if response.status == HTTPStatus.NOT_FOUND:
        raise NotFoundError(f"Docker has no plugin {SWARM_DRIVER}", why=message)
    if "in use" in message:
        raise ConflictError(
            f"Docker's plugin {SWARM_DRIVER} is in use",
            why=message,
            hint="Remove its networks first: docker network ls --filter driver=" + SWARM_DRIVER,
        )
    raise OverlayError(
        f"Docker rejected {method} {path}",
        why=message,
        hint="See what Docker logged: journalctl -u docker -n 20",
    )


# --- the plugin's content ---------------------------------------------------------------------


def _archive(agent_dir: Path) -> bytes:
    """Return the tar archive that Docker makes a plugin of: config.json and rootfs."""
    written = io.BytesIO()
    with tarfile.open(fileobj=written, mode="w") as archive:
        _add(archive, "config.json", json.dumps(_configuration(agent_dir)).encode())
        for folder in ("", *_FOLDERS):
            _add_folder(archive, f"rootfs/{folder}".rstrip("/"))
        for name in _LINKS:
            link = tarfile.TarInfo(f"rootfs/{name}")
            link.type, link.linkname, link.mode = tarfile.SYMTYPE, f"usr/{name}", 0o777
            archive.addfile(link)
        _add(archive, f"rootfs/{_RELAY}", Path(docker_relay.__file__).read_bytes())
    return written.getvalue()


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))


def _add_folder(archive: tarfile.TarFile, name: str) -> None:
    entry = tarfile.TarInfo(name)
    entry.type, entry.mode = tarfile.DIRTYPE, 0o755
    archive.addfile(entry)


def _configuration(agent_dir: Path) -> dict[str, Any]:
    """Return the plugin's configuration: no privileges, the host's programs, the agent's socket."""
    python = Path(sys.executable).resolve()
    return {
        "description": _description(),
        "documentation": "",
        "entrypoint": [str(python), "-IS", f"/{_RELAY}", f"/run/docker/plugins/{_SOCKET}"],
        "workdir": "/",
        "interface": {"types": list(_TYPES), "socket": _SOCKET},
        "network": {"type": "none"},
        "linux": {"capabilities": []},
        "mounts": [
            {
                "name": f"mount{number}",
                "source": str(source),
                "destination": destination,
                "type": "bind",
                "options": ["rbind", "ro"],
            }
            for number, (source, destination) in enumerate(_mounts(agent_dir))
        ],
        "propagatedMount": "",
        "env": [],
        "args": {"name": "args", "settable": None, "value": []},
    }


def _mounts(agent_dir: Path) -> Iterator[tuple[Path, str]]:
    yield Path("/usr"), "/usr"
    base = Path(sys.base_prefix).resolve()
    if not base.is_relative_to("/usr"):
        yield base, str(base)
    yield agent_dir, docker_relay.AGENT_DIR


def _description() -> str:
    """Return the plugin's description, which changes with its content."""
    from hashlib import sha256  # noqa: PLC0415  slow to import

    python = str(Path(sys.executable).resolve())
    content = Path(docker_relay.__file__).read_bytes() + python.encode()
    return f"overlayd: networks of a swarm ({sha256(content).hexdigest()[:12]})"
