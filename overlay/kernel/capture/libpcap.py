"""Compile filter expressions (pcap-filter(7)) with libpcap, which tcpdump uses too.

The language is what people know, and the library is on most hosts; a parser of overlayd's own
would be another dialect. It is loaded only for an expression.

Owns: the calls of the library, and the error where it is missing.
"""

from __future__ import annotations

import ctypes
from typing import Any, Final

from overlay import limits
from overlay.core.capture.classic_bpf import Instruction, Program
from overlay.errors import OverlayError, UsageError

_NAMES: Final = ("libpcap.so.0.8", "libpcap.so.1", "libpcap.so")  # Debian's, others', development's
_ETHERNET: Final = 1  # DLT_EN10MB
_SNAP: Final = 0x40000
_NETMASK_UNKNOWN: Final = 0xFFFFFFFF


class _Instruction(ctypes.Structure):
    _fields_ = (
        ("code", ctypes.c_ushort),
        ("if_true", ctypes.c_ubyte),
        ("if_false", ctypes.c_ubyte),
        ("value", ctypes.c_uint32),
    )


class _Program(ctypes.Structure):
    _fields_ = (("count", ctypes.c_uint), ("instructions", ctypes.POINTER(_Instruction)))


def compiled(expression: str) -> Program:
    """Return the program of an expression about Ethernet frames.

    Raises UsageError if it is not valid, OverlayError without the library.
    """
    library = _library()
    handle = library.pcap_open_dead(_ETHERNET, _SNAP)
    if not handle:
        raise OverlayError("libpcap could not be started", why="there is not enough memory")
    program = _Program()
    try:
        text = expression.encode(errors="surrogateescape")
        if library.pcap_compile(handle, ctypes.byref(program), text, 1, _NETMASK_UNKNOWN) != 0:
            raise UsageError(
                f"invalid filter {expression!r}",
                why=library.pcap_geterr(handle).decode(errors="replace"),
                hint="For example 'tcp port 5432' or 'host 10.32.0.7 and not arp': pcap-filter(7)",
            )
        try:
            return _copied(expression, program)
        finally:
            library.pcap_freecode(ctypes.byref(program))
    finally:
        library.pcap_close(handle)


def _copied(expression: str, program: _Program) -> Program:
    if program.count > limits.CAPTURE_FILTER_COUNT_MAX:
        raise UsageError(
            f"the filter {expression!r} is too long",
            why=f"it has {program.count} instructions; the kernel takes "
            f"{limits.CAPTURE_FILTER_COUNT_MAX}",
            hint="Name fewer addresses and ports, or a network: net 10.32.0.0/24",
        )
    return tuple(
        Instruction(each.code, each.if_true, each.if_false, each.value)
        for each in program.instructions[: program.count]
    )


def _library() -> Any:
    for name in _NAMES:
        try:
            library = ctypes.CDLL(name)
        except OSError:
            continue
        library.pcap_open_dead.restype = ctypes.c_void_p
        library.pcap_open_dead.argtypes = (ctypes.c_int, ctypes.c_int)
        library.pcap_compile.argtypes = (
            ctypes.c_void_p,
            ctypes.POINTER(_Program),
            ctypes.c_char_p,
            ctypes.c_int,
            ctypes.c_uint32,
        )
        library.pcap_geterr.restype = ctypes.c_char_p
        library.pcap_geterr.argtypes = (ctypes.c_void_p,)
        library.pcap_freecode.argtypes = (ctypes.POINTER(_Program),)
        library.pcap_close.argtypes = (ctypes.c_void_p,)
        return library
    raise OverlayError(
        "filter expressions need libpcap, which is not installed",
        why=f"none of {', '.join(_NAMES)} was found",
        hint="apt-get install libpcap0.8   (Fedora: dnf install libpcap). Or leave the filter out",
    )
