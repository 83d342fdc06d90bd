"""Programs at the hooks of interfaces that need no queueing discipline (tcx, Linux 6.6).

The hooks of tc(8) are a queueing discipline, and while one is added or removed the kernel stops the
interface for some milliseconds and drops what the host sends. These are not, and they run first.
A program's name says whose it is; those of others are left alone.
"""

from __future__ import annotations

import errno
import os
import socket
from collections.abc import Iterable
from functools import cache
from typing import Final

from overlay.kernel.bpf import syscall
from overlay.kernel.bpf.hooks.owner import EGRESS, INGRESS, HookOwner, HookUse, Place

_LOOPBACK_INDEX: Final = 1
_GONE: Final = frozenset({errno.ENODEV, errno.ENOENT})
_WITHOUT: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.EPERM})  # or without any eBPF


@cache
def has_tcx() -> bool:
    """Return whether the kernel has these hooks. Raises OSError if it lacks memory to say so."""
    try:
        syscall.attached(_LOOPBACK_INDEX)
    except OSError as error:
        if error.errno in _WITHOUT:
            return False
        raise
    return True


class TcxHooks:
    """The programs of one owner in the thread's namespace."""

    def __init__(self, owner: HookOwner) -> None:
        self._owner = owner
        self._name = owner.program_name

    def read(self, where: int) -> list[tuple[int, int]]:
        """Return the interfaces, by index, whose hook runs a program of this owner, and its id."""
        return [
            (index, number)
            for index, _ in socket.if_nameindex()
            for number in self._own(index, where)
        ]

    def at(self, places: Iterable[Place]) -> dict[Place, list[int]]:
        """Return the ids of this owner's programs at interfaces' hooks."""
        return {place: self._own(*place) for place in places}

    def _own(self, index: int, where: int) -> list[int]:
        return [number for number, name in named(index, where) if name == self._name]

    def put(self, index: int, program_fd: int, where: int) -> None:
        """Run a program at an interface's hook, in place of this owner's former one.

        Does nothing if there is no such interface. Raises OSError.
        """
        own = self._own(index, where)
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

    def delete(self, index: int, where: int) -> None:
        """Remove this owner's programs from an interface's hook. Raises OSError."""
        _delete(index, self._name, where)

    def has_others(self) -> bool:
        """Return whether an interface runs another node's program for the same use."""
        return any(
            name.startswith(self._owner.use.program_prefix) and name != self._name
            for index, _ in socket.if_nameindex()
            for where in (INGRESS, EGRESS)
            for _, name in named(index, where)
        )


def remove_all(use: HookUse) -> set[int]:
    """Remove the programs of all nodes for one use; return the interfaces' indexes.

    Raises OSError.
    """
    indexes = [index for index, _ in socket.if_nameindex()] if has_tcx() else []
    return {
        index
        for where in (EGRESS, INGRESS)  # what is sent may need what is received
        for index in indexes
        if _delete(index, use.program_prefix, where)
    }


def named(index: int, where: int) -> list[tuple[int, str]]:
    """Return the ids and names of the programs at an interface's hook."""
    try:
        return [(number, syscall.program_name(number)) for number in syscall.attached(index, where)]
    except OSError as error:
        if error.errno in _GONE:
            return []
        raise


def _delete(index: int, prefix: str, where: int) -> bool:
    """Remove the programs whose names begin so; return whether there were any."""
    found = [number for number, name in named(index, where) if name.startswith(prefix)]
    for number in found:
        _detach(index, number, where)
    return bool(found)


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
