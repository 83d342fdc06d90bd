"""HTTP over a UNIX socket, synchronous: one request per connection.

Owns: the connection; it is the only importer of http.client. Does not: know requests or
responses. Used by the command line for the agent, and by the agent for Docker's and Podman's
sockets.
"""

from __future__ import annotations

import os
import socket

from overlay import limits
from overlay.lean_imports import without_openssl

with without_openssl():
    from http.client import HTTPConnection, HTTPException, HTTPResponse

__all__ = ["HTTPException", "HTTPResponse", "UnixConnection", "send"]

_TIMEOUT_MIN_S = 0.001  # a timeout of 0 would be a socket that does not block


class UnixConnection(HTTPConnection):
    """An HTTP/1.1 connection to the server at a UNIX socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=max(timeout_s, _TIMEOUT_MIN_S))
        self._path = path

    def connect(self) -> None:
        """Connect to the socket.

        Raises FileNotFoundError, ConnectionRefusedError, PermissionError or another OSError.
        """
        if len(os.fsencode(self._path)) > limits.SOCKET_PATH_SIZE_MAX:
            raise OSError(
                f"the socket path is longer than {limits.SOCKET_PATH_SIZE_MAX} bytes: {self._path}"
            )
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.settimeout(self.timeout)
            self.sock.connect(self._path)
        except OSError:
            self.sock.close()
            self.sock = None
            raise


def send(
    connection: UnixConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    content_type: str = "application/json",
) -> HTTPResponse:
    """Send one request and return the response, its body not read yet.

    Raises OSError (TimeoutError included) and HTTPException.
    """
    headers = {"Content-Type": content_type} if body is not None else {}
    connection.request(method, path, body=body, headers=headers)
    return connection.getresponse()
