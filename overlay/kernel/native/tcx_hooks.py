"""A node's programs on the underlay's interfaces, without a queueing discipline (tcx, Linux 6.6).

The hooks of tc(8) are a queueing discipline, and while one is added or removed the kernel stops the
interface for some milliseconds and drops what the host sends. These are not, and they run first.
A program's name says whose it is.

Owns: which programs are this node's. Several agents may share a host.
"""

from __future__ import annotations

import errno
import os
import socket
from functools import cache
from typing import Final

from overlay.kernel.bpf import syscall
from overlay.model import NodeId

_PREFIX: Final = "ovn_"  # of the programs' names
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


def program_name(node_id: NodeId) -> str:
    """Return the name of a node's programs."""
    return f"{_PREFIX}{node_id[:3].hex()}"


class TcxHooks:
    """The programs of one node in the thread's namespace."""

    def __init__(self, node_id: NodeId) -> None:
        self._name = program_name(node_id)

    def read(self) -> list[tuple[int, int]]:
        """Return the interfaces, by index, that run a program of this node, and its id."""
        return [
            (index, number)
            for index, _ in socket.if_nameindex()
            for number, name in _named(index)
            if name == self._name
        ]

    def put(self, index: int, program_fd: int) -> None:
        """Run a program on an interface, in place of this node's former one. Raises OSError.

        Does nothing if there is no such interface.
        """
        own = [number for number, name in _named(index) if name == self._name]
        try:
            if own:
                former = syscall.open_program(own[0])
                try:
                    syscall.attach(program_fd, index, former)
                finally:
                    os.close(former)
            else:
                syscall.attach(program_fd, index)
        except OSError as error:
            if error.errno != errno.ENODEV:
                raise

    def delete(self, index: int) -> None:
        """Remove this node's programs from an interface. Raises OSError."""
        for number, name in _named(index):
            if name == self._name:
                _detach(index, number)


def remove_all() -> list[int]:
    """Remove the programs of all nodes from all interfaces; return the interfaces' indexes."""
    removed: list[int] = []
    for index, _ in socket.if_nameindex() if has_tcx() else ():
        for number, name in _named(index):
            if name.startswith(_PREFIX):
                _detach(index, number)
                removed.append(index)
    return removed


def _named(index: int) -> list[tuple[int, str]]:
    """Return the ids and names of the programs on an interface."""
    try:
        return [(number, syscall.program_name(number)) for number in syscall.attached(index)]
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise


def _detach(index: int, number: int) -> None:
    try:
        descriptor = syscall.open_program(number)
    except FileNotFoundError:
        return
    try:
        syscall.detach(descriptor, index)
    except OSError as error:
        if error.errno not in _GONE:
            raise
    finally:
        os.close(descriptor)
