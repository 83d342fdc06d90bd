"""The program inside Docker's managed plugin: passes the calls of a swarm on to the agent.

Docker's swarm accepts managed plugins only, and starts each in a container of its own. This file
is copied into that container, so it imports nothing of overlayd. While the agent is down or
restarts it waits for it, and then answers what to do: without an answer Docker would disable the
plugin. Owns: one request for each call. Does not: know any call.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from socketserver import ThreadingMixIn, UnixStreamServer

AGENT_DIR = "/agent"
AGENT = AGENT_DIR + "/overlayd.sock"  # the agent's, bound into the container
PREFIX = "/swarm"
WAIT_S = 10.0  # for the agent: Docker gives up after 30 s
CALL_TIMEOUT_S = 28.0
PAUSE_S = 0.1
BODY_SIZE_MAX = 512 * 1024
CONTENT_TYPE = "application/vnd.docker.plugins.v1.2+json"
ACTIVATION = b'{"Implements": ["NetworkDriver", "IpamDriver"]}'


class Handler(BaseHTTPRequestHandler):
    """Answers one connection of Docker's."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        """Pass a call on, and its answer back."""
        size = min(int(self.headers.get("Content-Length") or 0), BODY_SIZE_MAX)
        body = self.rfile.read(size)
        if self.path == "/Plugin.Activate":  # Docker starts: it may do so before the agent
            status, answer = 200, ACTIVATION
        else:
            status, answer = call_agent(self.path, body)
        self.send_response(status)
        self.send_header("Content-Type", CONTENT_TYPE)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        """Write no line for each call: the agent's log has what fails."""


class Server(ThreadingMixIn, UnixStreamServer):
    """Docker's end: a thread for each connection."""

    daemon_threads = True
    request_queue_size = 64

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        """Return a connection with an address, which the base class wants to name."""
        connection, _ = self.socket.accept()
        return connection, ("docker", 0)


def call_agent(path: str, body: bytes, agent: str = AGENT) -> tuple[int, bytes]:
    """Return status and body of the agent's answer, or of an error that says that none runs.

    A call that was interrupted is made again: the agent answers a repetition as the first one.
    """
    head = f"POST {PREFIX}{path} HTTP/1.0\r\nContent-Length: {len(body)}\r\n\r\n".encode()
    deadline = time.monotonic() + WAIT_S
    while True:
        try:
            return _exchange(agent, head + body)
        except (OSError, ValueError) as error:
            if time.monotonic() >= deadline:
                reason = getattr(error, "strerror", None) or str(error)
                text = f"overlayd: the agent of this host does not answer ({reason}): "
                text += "start it, and try again: sudo systemctl start overlayd"
                return 200, json.dumps({"Err": text, "Error": text}).encode()
        time.sleep(PAUSE_S)


def _exchange(agent: str, request: bytes) -> tuple[int, bytes]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(CALL_TIMEOUT_S)
        connection.connect(agent)
        connection.sendall(request)
        parts = []
        while part := connection.recv(64 * 1024):
            parts.append(part)
    head, found, body = b"".join(parts).partition(b"\r\n\r\n")
    if not found:
        raise ValueError("its answer was cut off")
    return int(head.split(maxsplit=2)[1]), body


def main() -> None:
    """Serve Docker until the container is stopped."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # process 1 of a container ignores it
    path = Path(sys.argv[1])
    path.unlink(missing_ok=True)
    with Server(str(path), Handler) as server:
        server.serve_forever()


if __name__ == "__main__":
    main()
