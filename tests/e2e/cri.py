"""A kubelet's requests for pod sandboxes: containerd's CRI, by gRPC over its socket.

Messages are few and small, so they are encoded here, and curl speaks HTTP/2.
"""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.e2e.conftest import Cluster

SOCKET = "/run/ctd/containerd.sock"
_CALL = (
    "base64 -d | curl -sS -m 60 --http2-prior-knowledge --unix-socket {socket} -X POST"
    " -H 'content-type: application/grpc' -H 'te: trailers' -D /run/cri-headers"
    " --data-binary @- http://localhost/runtime.v1.RuntimeService/{method} | base64 -w 0;"
    " echo; grep -i '^grpc-' /run/cri-headers"
)


def field(number: int, value: str | bytes | int) -> bytes:
    """Return one field of a protobuf message; a message is bytes."""
    if isinstance(value, int):
        return _varint(number << 3) + _varint(value)
    content = value.encode() if isinstance(value, str) else value
    return _varint(number << 3 | 2) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def fields(message: bytes) -> dict[int, bytes]:
    """Return the fields of a message that are strings or messages; the last of each number."""
    found: dict[int, bytes] = {}
    while message:
        tag, message = _split_varint(message)
        size, message = _split_varint(message)
        if tag & 7 == 2:
            found[tag >> 3], message = message[:size], message[size:]
    return found


def _split_varint(message: bytes) -> tuple[int, bytes]:
    value = 0
    for index, byte in enumerate(message):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, message[index + 1 :]
    raise AssertionError("a number is cut off")


class Cri:
    """The pod sandboxes of containerd on one host."""

    def __init__(self, cluster: Cluster, number: int) -> None:
        self._cluster = cluster
        self._number = number

    def call(self, method: str, message: bytes) -> bytes:
        """Make a call that must succeed; return the answer's message."""
        framed = b"\0" + len(message).to_bytes(4, "big") + message
        command = _CALL.format(socket=SOCKET, method=method)
        given = base64.b64encode(framed).decode()
        _, out, err = self._cluster.run(self._number, "bash", "-c", command, stdin=given)
        body, _, status = out.partition("\n")
        assert "grpc-status: 0" in status.lower(), f"{method}: {status}{err}"
        return base64.b64decode(body)[5:]

    def run(self, name: str, *, host_port: int, container_port: int) -> str:
        """Run a pod sandbox with a mapped port; return its id."""
        metadata = field(1, name) + field(2, f"uid-{name}") + field(3, "default")
        port = field(2, container_port) + field(3, host_port)
        config = field(1, metadata) + field(2, name) + field(5, port)
        config += field(8, b"")  # without Linux' settings containerd refuses it
        return fields(self.call("RunPodSandbox", field(1, config)))[1].decode()

    def ip(self, sandbox: str) -> str:
        """Return the address that a kubelet would show."""
        status = fields(self.call("PodSandboxStatus", field(1, sandbox)))[1]
        return fields(fields(status)[5])[1].decode()

    def end(self, sandbox: str) -> None:
        """Stop a sandbox, twice as a kubelet does, and remove it."""
        for method in ("StopPodSandbox", "StopPodSandbox", "RemovePodSandbox"):
            self.call(method, field(1, sandbox))
