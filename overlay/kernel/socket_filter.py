"""Attach a program of classic BPF to a socket (socket(7): SO_ATTACH_FILTER).

The kernel checks every program, as it does those of unprivileged users.
"""

from __future__ import annotations

import ctypes
import socket
import struct
from typing import Final

from overlay.core.capture.classic_bpf import Program

_SO_ATTACH_FILTER: Final = 26
_INSTRUCTION: Final = struct.Struct("=HBBI")  # struct sock_filter


def attach(opened: socket.socket, program: Program) -> None:
    """Attach a program; raises OSError, with EINVAL for one that the kernel does not accept."""
    raw = b"".join(_INSTRUCTION.pack(*each) for each in program)
    buffer = ctypes.create_string_buffer(raw, len(raw))
    described = struct.pack("@HP", len(program), ctypes.addressof(buffer))  # struct sock_fprog
    opened.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, described)
