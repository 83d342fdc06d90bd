"""Programs at the hooks of interfaces that need no queueing discipline (tcx, Linux 6.6).

The hooks of tc(8) are a queueing discipline, and while one is added or removed the kernel stops the
interface for some milliseconds and drops what the host sends. These are not, and they run first.
A program's name says whose it is; those of others are left alone.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterator
from functools import cache
from typing import Final

from overlay.kernel.bpf import syscall

_LOOPBACK_INDEX: Final = 1
_GONE: Final = frozenset({errno.ENODEV, errno.ENOENT})


@cache
def has_tcx() -> bool:
    """Return whether the kernel has these hooks."""
    try:
        syscall.attached(_LOOPBACK_INDEX)
    except OSError:
        return False
    return True


def put(index: int, program_fd: int, name: str, where: int = syscall.TCX_INGRESS) -> None:
    """Run a program at an interface's hook, in place of a former one of this name. Raises OSError.

    Does nothing if there is no such interface.
    """
    own = [number for number, found in named(index, where) if found == name]
    try:
        if own:
            former = syscall.open_program(own[0])
            try:
                syscall.attach(program_fd, index, former, where)
            finally:
                os.close(former)
        else:
            syscall.attach(program_fd, index, where=where)
    except OSError as error:
        if error.errno != errno.ENODEV:
            raise


def delete(index: int, prefix: str, where: int = syscall.TCX_INGRESS) -> bool:
    """Remove the programs whose names begin so from an interface's hook. Raises OSError.

    Returns whether there were any.
    """
    found = [number for number, name in named(index, where) if name.startswith(prefix)]
    for number in found:
        _detach(index, number, where)
    return bool(found)


def programs(prefix: str, where: int = syscall.TCX_INGRESS) -> Iterator[tuple[int, int]]:
    """Yield interfaces, by index, and ids of the programs there whose names begin so."""
    for index, _ in socket.if_nameindex():
        for number, name in named(index, where):
            if name.startswith(prefix):
                yield index, number


def remove_all(prefix: str, where: int = syscall.TCX_INGRESS) -> list[int]:
    """Remove the programs whose names begin so; return the interfaces' indexes. Raises OSError."""
    indexes = [index for index, _ in socket.if_nameindex()] if has_tcx() else []
    return [index for index in indexes if delete(index, prefix, where)]


def named(index: int, where: int = syscall.TCX_INGRESS) -> list[tuple[int, str]]:
    """Return the ids and names of the programs at an interface's hook."""
    try:
        return [(number, syscall.program_name(number)) for number in syscall.attached(index, where)]
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise


def _detach(index: int, number: int, where: int) -> None:
    try:
        descriptor = syscall.open_program(number)
    except FileNotFoundError:
        return
    try:
        syscall.detach(descriptor, index, where)
    except OSError as error:
        if error.errno not in _GONE:
            raise
    finally:
        os.close(descriptor)
