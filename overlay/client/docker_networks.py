"""Remove from Docker the networks that overlayd made there (`docker_networks`), without an agent.

Docker asks a network's driver before it removes the network, so for the time being this module
answers in the agent's place. Owns: which networks are removed, and which stay for their containers.
Does not: print anything.
"""

from __future__ import annotations

import contextlib
import json
import socketserver
import threading
from collections.abc import Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, NamedTuple

from overlay import limits
from overlay.docker_socket import (
    CONSTANT_ANSWERS,
    DRIVER,
    PLUGIN_DIR,
    SOCKET_NAME,
    is_made_by_overlayd,
    users_query,
)
from overlay.errors import OverlayError
from overlay.unix_http import HttpError, UnixConnection, quote, send

DOCKER_SOCKET = Path("/var/run/docker.sock")


class DockerLeftovers(NamedTuple):
    """The names of the networks that were removed from Docker, and of those that are left."""

    removed: tuple[str, ...] = ()
    in_use: tuple[tuple[str, tuple[str, ...]], ...] = ()  # with the containers that use each
    users: tuple[str, ...] = ()  # networks that a user made with overlayd's driver


def remove_made(docker: Path = DOCKER_SOCKET, plugin_dir: Path = PLUGIN_DIR) -> DockerLeftovers:
    """Remove the networks that no container uses; nothing if Docker does not run.

    Raises OverlayError if Docker does not answer, or refuses.
    """
    if not docker.exists():
        return DockerLeftovers()
    listed = [each for each in _request(docker, "GET", "/networks") if each["Driver"] == DRIVER]
    made = [each for each in listed if is_made_by_overlayd(each)]
    users = tuple(sorted(str(each["Name"]) for each in listed if each not in made))
    removed, in_use = [], []
    with _answering(plugin_dir / SOCKET_NAME) if made else contextlib.nullcontext():
        for each in made:
            found = _request(docker, "GET", users_query(each))
            names = tuple(sorted(str(item["Names"][0]).lstrip("/") for item in found))
            if names:
                in_use.append((str(each["Name"]), names))
                continue
            _request(docker, "DELETE", f"/networks/{quote(str(each['Id']))}")
            removed.append(str(each["Name"]))
    return DockerLeftovers(tuple(removed), tuple(in_use), users)


class _Driver(BaseHTTPRequestHandler):
    """Answers Docker's calls as a driver that has nothing left to remove."""

    def do_POST(self) -> None:
        """Agree."""
        self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = json.dumps(CONSTANT_ANSWERS.get(self.path.lstrip("/"), {})).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  as inherited
        """Keep quiet."""


class _Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


@contextlib.contextmanager
def _answering(path: Path) -> Iterator[None]:
    """Answer Docker on the plugin's socket for the block, unless another agent does."""
    if _is_served(path):
        yield
        return
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    with _Server(str(path), _Driver) as server:
        path.chmod(0o600)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()


def _is_served(path: Path) -> bool:
    connection = UnixConnection(str(path), limits.DOCKER_PLUGIN_TIMEOUT_S)
    try:
        connection.connect()
    except OSError:
        return False
    finally:
        connection.close()
    return True


def _request(docker: Path, method: str, path: str) -> Any:
    connection = UnixConnection(str(docker), limits.DOCKER_PLUGIN_TIMEOUT_S)
    try:
        with send(connection, method, path) as response:
            raw = response.read()
        answer = json.loads(raw) if raw else None
    except (OSError, HttpError, ValueError) as error:
        raise OverlayError(
            f"Docker does not answer on {docker}",
            why=str(error) or type(error).__name__,
            hint="Start it, and run this again: sudo systemctl start docker",
        ) from error
    finally:
        connection.close()
    if response.status >= HTTPStatus.BAD_REQUEST:
        message = str((answer or {}).get("message") or f"HTTP {response.status}")
        raise OverlayError(
            f"Docker rejected {method} {path}",
            why=message,
            hint="See what Docker logged: journalctl -u docker -n 20",
        )
    return answer
