"""Client of the agent's API for the plugins that container runtimes start for each container.

A request of its own, by HTTP/1.0, instead of `ApiClient`: to import an HTTP library takes longer
than an attach. Does not: know any request.
"""

from __future__ import annotations

import json
import socket

from overlay import limits
from overlay.client.api_errors import (
    answered_error,
    connection_error,
    decoded,
)

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Any

_TIMEOUT_S = limits.API_REQUEST_TIMEOUT_S + 5.0  # longer than the agent's own, which says more
_SOCKET_NAME = "api.sock"
_LOG_NAME = "agent.log"
_READ_SIZE = 64 * 1024


class PluginClient:
    """Sends requests to the agent that listens in a run directory."""

    def __init__(self, run_dir: str) -> None:
        self._socket = f"{run_dir}/{_SOCKET_NAME}"
        self._log = f"{run_dir}/{_LOG_NAME}"

    def get(self, path: str) -> dict[str, Any]:
        """Return the answer to a GET; raises OverlayError."""
        return self._call("GET", path, b"")

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Return the answer to a POST; raises OverlayError."""
        return self._call("POST", path, json.dumps(body).encode())

    def _call(self, method: str, path: str, body: bytes) -> dict[str, Any]:
        head = f"{method} {path} HTTP/1.0\r\nContent-Type: application/json\r\n"
        head += f"Content-Length: {len(body)}\r\n\r\n"
        try:
            status, answer = _split(self._exchange(head.encode() + body))
        except OSError as error:
            raise connection_error(error, self._socket, self._log, _TIMEOUT_S) from error
        if status >= 400:
            raise answered_error(answer, status)
        return decoded(answer, status)

    def _exchange(self, request: bytes) -> bytes:
        """Send a request and return all that comes until the agent closes the connection."""
        if len(self._socket.encode()) > limits.SOCKET_PATH_SIZE_MAX:
            raise OSError(f"its path is longer than {limits.SOCKET_PATH_SIZE_MAX} bytes")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(_TIMEOUT_S)
            connection.connect(self._socket)
            connection.sendall(request)
            parts = []
            while part := connection.recv(_READ_SIZE):
                parts.append(part)
        return b"".join(parts)


def _split(raw: bytes) -> tuple[int, bytes]:
    """Return status and body of a response; raises ConnectionResetError if it is incomplete."""
    head, _, body = raw.partition(b"\r\n\r\n")
    status_line, *lines = head.decode("latin-1").split("\r\n")
    headers = {
        name.strip().lower(): text.strip() for name, _, text in (s.partition(":") for s in lines)
    }
    try:
        status, size = int(status_line.split()[1]), int(headers["content-length"])
    except (LookupError, ValueError):
        raise ConnectionResetError("its response has no status or no length") from None
    if len(body) < size:
        raise ConnectionResetError(f"{len(body)} of {size} bytes came")
    return status, body[:size]
