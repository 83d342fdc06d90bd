"""Receive the frames of one interface (packet(7)); needs CAP_NET_RAW.

The interface is a container's own. Every frame of the container passes there, whichever way it
takes through the host: what the fast path's eBPF programs redirect does not pass the sandbox's end
or the bridge.

Owns: the socket, and the kernel's counts. Does not: know which frames are wanted.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import socket
import struct
import time
from typing import Final, Self

from overlay import limits
from overlay.core.capture.classic_bpf import Program
from overlay.core.protocol.capture import CapturedFrame
from overlay.kernel import netns, socket_filter

_ALL: Final = 0x0003  # ETH_P_ALL, linux/if_ether.h
_OUTGOING: Final = 4  # PACKET_OUTGOING, linux/if_packet.h
_SOL_PACKET, _PACKET_STATISTICS = 263, 6
_SO_TIMESTAMPNS, _SO_RCVBUFFORCE = 35, 33  # asm-generic/socket.h
_SIOCGIFNAME: Final = 0x8910
_TIME: Final = struct.Struct("@ll")  # struct timespec
_COUNTS: Final = struct.Struct("@II")  # struct tpacket_stats


class FrameTap:
    """The frames of an interface that a program accepts, from the moment of its construction."""

    def __init__(
        self, netns_fd: int | None, ifname: str, program: Program, *, snap: int, buffer_size: int
    ) -> None:
        """Begin in a namespace, None for the present one; raises OSError."""
        self.ifname = ifname
        self.received = 0  # by the kernel's counts, as of the last `read_counts`
        self.dropped = 0
        self._buffer = bytearray(snap)
        inside = contextlib.nullcontext() if netns_fd is None else netns.inside(netns_fd)
        with inside:
            kind = socket.SOCK_RAW | socket.SOCK_NONBLOCK
            self._socket = socket.socket(socket.AF_PACKET, kind, 0)  # 0: nothing before the filter
            try:
                self._index = socket.if_nametoindex(ifname)
                socket_filter.attach(self._socket, program)
                self._socket.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
                self._enlarge(buffer_size)
                self._socket.bind((ifname, _ALL))
            except OSError:
                self._socket.close()
                raise

    def _enlarge(self, size: int) -> None:
        try:
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, size)
        except PermissionError:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)

    def fileno(self) -> int:
        """Return the socket's descriptor, to wait for frames."""
        return self._socket.fileno()

    def frames(self, count_max: int = limits.CAPTURE_BATCH_COUNT) -> list[CapturedFrame]:
        """Return what has passed since the last call, oldest first; raises OSError."""
        found: list[CapturedFrame] = []
        while len(found) < count_max:
            try:
                size, ancillary, _, address = self._socket.recvmsg_into(
                    [self._buffer], socket.CMSG_SPACE(_TIME.size), socket.MSG_TRUNC
                )
            except (BlockingIOError, InterruptedError):
                break
            except OSError as error:
                if error.errno != errno.ENETDOWN:
                    raise
                continue  # said once, when the interface is set down or is removed
            data = bytes(self._buffer[: min(size, len(self._buffer))])
            found.append(CapturedFrame(_time_ns(ancillary), address[2] == _OUTGOING, size, data))
        return found

    def is_gone(self) -> bool:
        """Return whether the interface no longer exists."""
        request = struct.pack("16si20x", b"", self._index)  # struct ifreq
        try:
            fcntl.ioctl(self._socket, _SIOCGIFNAME, request)
        except OSError as error:
            return error.errno == errno.ENODEV
        return False

    def read_counts(self) -> None:
        """Add the kernel's counts since the last call to `received` and `dropped`."""
        raw = self._socket.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, _COUNTS.size)
        received, dropped = _COUNTS.unpack(raw)
        self.received += received
        self.dropped += dropped

    def close(self) -> None:
        """Stop."""
        self._socket.close()

    def __enter__(self) -> Self:
        """Return the tap, for a block that ends with its close."""
        return self

    def __exit__(self, *_raised: object) -> None:
        """Stop."""
        self.close()


def _time_ns(ancillary: list[tuple[int, int, bytes]]) -> int:
    for level, kind, raw in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, _SO_TIMESTAMPNS) and len(raw) >= _TIME.size:
            seconds, nanoseconds = _TIME.unpack_from(raw)
            return int(seconds) * 1_000_000_000 + int(nanoseconds)
    return time.time_ns()
