"""Outputs for captured frames: a pcapng file, lines for people, or lines of JSON.

Owns: the bytes and the lines. Does not: decide when the capture ends.
"""

from __future__ import annotations

import json
import os
import platform
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Sequence
from io import FileIO
from pathlib import Path
from typing import BinaryIO

from overlay import __version__
from overlay.cli.capture.interface import (
    CaptureInterface,
    InterfaceCounts,
    KnownAddresses,
    comment,
    described,
    direction,
)
from overlay.core.capture import pcapng
from overlay.core.protocol.capture import CapturedFrame
from overlay.errors import OverlayError
from overlay.model import Mac, parse_mac

_FLUSH_SIZE = 64 * 1024
_NS = 1_000_000_000


class CaptureSink(ABC):
    """Takes the interfaces of a capture as they are known, and its frames in order."""

    def __init__(self) -> None:
        self.size = 0  # bytes written

    def add_interface(self, interface: CaptureInterface, note: str) -> None:  # noqa: B027 - lines name it
        """Take an interface, before its first frame."""

    @abstractmethod
    def add_frame(self, interface: CaptureInterface, frame: CapturedFrame) -> None:
        """Take a frame."""

    def flush(self) -> None:
        """Show what has come."""
        sys.stdout.flush()

    def finish(self, counts: Sequence[InterfaceCounts]) -> None:  # noqa: ARG002 - the verb shows them
        """Write the end; `counts` are of the interfaces."""
        self.flush()

    def close(self) -> None:
        """Close what was opened."""
        self.flush()


class FileSink(CaptureSink):
    """A pcapng file."""

    def __init__(
        self, path: str, snap: int, expression: str, note: str, known: KnownAddresses
    ) -> None:
        """Create the file, `-` for stdout; raises OverlayError."""
        super().__init__()
        # One for all interfaces, also where less is sent: libpcap reads no other files.
        self._snap = snap
        self._expression = expression
        self._known = known
        self._path = path
        self._waiting: list[bytes] = []
        self._waiting_size = 0
        self._numbers: dict[CaptureInterface, int] = {}
        self._file = _created(path)
        system = f"{platform.system()} {platform.release()}"
        self._add(pcapng.section(note, f"overlayd {__version__}", system))

    def add_interface(self, interface: CaptureInterface, note: str) -> None:
        """Write the block of an interface."""
        self._numbers[interface] = len(self._numbers)
        mac = Mac(parse_mac(interface.mac))
        self._add(
            pcapng.interface(
                interface.name, interface.description, mac, self._snap, self._expression, note
            )
        )

    def add_frame(self, interface: CaptureInterface, frame: CapturedFrame) -> None:
        """Write a frame with its comment."""
        text = comment(interface, frame, self._known.peer_vtep(interface, frame))
        self._add(pcapng.packet(self._numbers[interface], frame, text))

    def finish(self, counts: Sequence[InterfaceCounts]) -> None:
        """Write the statistics."""
        for interface, captured, dropped, note in counts:
            number = self._numbers.get(interface)
            if number is not None:  # an end that never answered is not in the file
                now = time.time_ns()
                self._add(pcapng.statistics(number, now, captured + dropped, dropped, note))
        self.flush()

    def close(self) -> None:
        """Close the file."""
        if self._path != "-":
            self._file.close()

    def flush(self) -> None:
        """Write the frames that wait; raises OverlayError if the disk is full."""
        left = memoryview(b"".join(self._waiting))
        self._waiting, self._waiting_size = [], 0
        try:
            while left:
                left = left[self._file.write(left) :]
            self._file.flush()
        except BrokenPipeError:
            raise  # the reader has enough: the entry point ends quietly
        except OSError as error:
            raise OverlayError(
                f"cannot write to {self._path}",
                why=error.strerror or str(error),
                hint="What was written before is complete up to its last whole packet",
            ) from error

    def _add(self, block: bytes) -> None:
        self.size += len(block)
        self._waiting.append(block)
        self._waiting_size += len(block)
        if self._waiting_size >= _FLUSH_SIZE:
            self.flush()


def _created(path: str) -> BinaryIO | FileIO:
    if path == "-":
        return sys.stdout.buffer
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise OverlayError(
            f"cannot write to {path}",
            why=error.strerror or str(error),
            hint=f"df {Path(path).absolute().parent}   shows the disk; -w - writes to stdout",
        ) from error
    return os.fdopen(descriptor, "wb", buffering=0)


class LineSink(CaptureSink):
    """One line a frame, for people."""

    def add_frame(self, interface: CaptureInterface, frame: CapturedFrame) -> None:
        """Print a frame."""
        at = f"{_clock(frame.time_ns)}  {interface.node} {interface.container} {direction(frame)}"
        line = f"{at:<40}  {described(frame).text()}"
        self.size += len(line)
        sys.stdout.write(f"{line}\n")


class JsonSink(CaptureSink):
    """One object a frame."""

    def __init__(self, known: KnownAddresses) -> None:
        super().__init__()
        self._known = known

    def add_frame(self, interface: CaptureInterface, frame: CapturedFrame) -> None:
        """Print a frame."""
        line = json.dumps(
            {
                "schema": "overlayd.capture-frame/v1",
                "time": frame.time_ns / _NS,
                "node": interface.node,
                "container": interface.container,
                "interface": interface.ifname,
                "network": interface.network,
                "direction": "out" if frame.is_outgoing else "in",
                "vni": interface.vni,
                "vtep": interface.vtep,
                "peer_vtep": self._known.peer_vtep(interface, frame),
                "size": frame.size,
                "captured": len(frame.data),
                **described(frame)._asdict(),
            }
        )
        self.size += len(line)
        sys.stdout.write(f"{line}\n")


def _clock(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, _NS)
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{rest // 1000:06d}"
