"""Send hand-made frames from a lab's namespace, and capture them."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from typing import Self

from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.lab import frames, host_process
from overlay.lab.host_process import HostProcess

_END_TIMEOUT_S = 30.0


class NamespaceRef:
    """A namespace of a lab host, by name; without a name, the host's own."""

    def __init__(self, host: HostProcess, namespace: str = "") -> None:
        self.host = host
        self._inside: tuple[str, ...] = ("ip", "netns", "exec", namespace) if namespace else ()

    def words(self, *arguments: str) -> list[str]:
        """Return the command that runs `frames` as a program in the namespace."""
        program = [sys.executable, "-P", frames.__file__, *arguments]
        return host_process.enter_command(self.host, [*self._inside, *program])

    def run(self, *command: str) -> str:
        """Run a command in the namespace; return its output.

        Raises OverlayError if it fails.
        """
        done = host_process.run(self.host, *self._inside, *command)
        if done.returncode:
            raise OverlayError(f"{command} failed", why=(done.stdout + done.stderr).strip())
        return done.stdout

    def send(self, *arguments: str) -> None:
        """Send a frame, packet or datagram by the `frames` program.

        Raises OverlayError.
        """
        done = subprocess.run(
            self.words(*arguments), capture_output=True, text=True, timeout=30, check=False
        )
        if done.returncode:
            raise OverlayError(f"cannot send {arguments[0]}", why=done.stderr.strip()[-400:])

    def send_frames(self, *frames: bytes, interface: str = "eth0") -> None:
        """Send raw frames."""
        self.send("frames", interface, *(frame.hex() for frame in frames))


def socket_in(host: HostProcess, *kind: int) -> socket.socket:
    """Return a socket in a lab host's own namespace.

    `kind` as for `socket.socket`.
    """
    descriptor = os.open(f"/proc/{host.pid}/ns/net", os.O_RDONLY)
    try:
        with netns.inside(descriptor):
            return socket.socket(*kind)
    finally:
        os.close(descriptor)


class FrameCapture:
    """Captures labels of received frames until the fence arrives.

    The fence is a frame that certainly arrives, sent last, so that the capture need not wait for
    frames that do not.
    """

    def __init__(
        self, spot: NamespaceRef, fence: Callable[[], None], interface: str = "eth0"
    ) -> None:
        self.seen: list[str] = []
        self._fence = fence
        self._process = subprocess.Popen(
            spot.words("watch", interface, "fence"), stdout=subprocess.PIPE, text=True
        )

    def __enter__(self) -> Self:
        assert self._process.stdout is not None
        self._process.stdout.readline()
        return self

    def __exit__(self, *_: object) -> None:
        self._fence()
        output = self._process.communicate(timeout=_END_TIMEOUT_S)[0]
        self.seen = output.split("\n")[:-2]
        if self._process.returncode:
            raise OverlayError("the fence did not arrive", why=f"seen: {self.seen}")
