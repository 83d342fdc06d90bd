"""Run a command under the limits of deploy/overlayd.service: system calls, memory, umask.

A program for tests, which needs no systemd: `python cage.py UNIT COMMAND ...`. The groups of
system calls are systemd's (systemd-analyze syscall-filter); the filter is built with libseccomp,
as systemd does. `python cage.py --without-nftables COMMAND ...` runs a command as if the kernel
had no nftables.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_PR_SET_MDWE, _MDWE_REFUSE_EXEC_GAIN = 65, 1
_ACT_ALLOW, _ACT_ERRNO = 0x7FFF0000, 0x00050000  # seccomp.h
_EQUAL = 4  # SCMP_CMP_EQ
_NETLINK_NETFILTER = 12


def calls(word: str) -> Iterator[str]:
    """Yield the system calls of a group, or a call itself."""
    if not word.startswith("@"):
        yield word
        return
    told = subprocess.run(
        ["systemd-analyze", "syscall-filter", word], capture_output=True, text=True, check=True
    ).stdout
    for line in told.splitlines()[1:]:
        if line.strip() and not line.strip().startswith("#"):
            yield from calls(line.strip())


def settings(unit: str, name: str) -> list[str]:
    """Return the values of a setting of the unit, in order."""
    lines = [line for line in unit.splitlines() if line.startswith(f"{name}=")]
    return [line.partition("=")[2] for line in lines]


class Comparison(ctypes.Structure):
    """A condition on an argument of a system call (struct scmp_arg_cmp)."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("value", ctypes.c_uint64),
        ("unused", ctypes.c_uint64),
    )


class Filter:
    """A system call filter under construction."""

    def __init__(self, action: int) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(action))

    def add(self, action: int, name: str, *comparisons: Comparison) -> None:
        """Set the action for a call; one that this machine does not have is ignored."""
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            count = len(comparisons)
            array = (Comparison * count)(*comparisons)
            added = self._library.seccomp_rule_add_array
            assert added(self._context, action, number, count, array) == 0

    def enter(self, command: list[str]) -> None:
        """Run a command under the filter, in this process's place."""
        assert ctypes.CDLL(None).prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
        assert self._library.seccomp_load(self._context) == 0
        os.execvp(command[0], command)  # noqa: S606 - meant


def without_nftables() -> Filter:
    """Return a filter that makes netlink sockets for netfilter unknown."""
    made = Filter(_ACT_ALLOW)
    netlink = Comparison(0, _EQUAL, socket.AF_NETLINK, 0)
    netfilter = Comparison(2, _EQUAL, _NETLINK_NETFILTER, 0)
    made.add(_ACT_ERRNO | errno.EPROTONOSUPPORT, "socket", netlink, netfilter)
    return made


def of_unit(unit: str) -> Filter:
    """Return the filter of a unit; forbids memory as it says, too."""
    made = Filter(_ACT_ERRNO | errno.EPERM)
    # systemd always allows these, to start the program.
    allowed = {"execve", *calls("@default")}
    for line in settings(unit, "SystemCallFilter"):
        named = {call for word in line.removeprefix("~").split() for call in calls(word)}
        allowed = allowed - named if line.startswith("~") else allowed | named
    for name in sorted(allowed):
        made.add(_ACT_ALLOW, name)
    if settings(unit, "MemoryDenyWriteExecute") == ["yes"]:
        assert ctypes.CDLL(None).prctl(_PR_SET_MDWE, _MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0
    return made


if __name__ == "__main__":
    if sys.argv[1] == "--without-nftables":
        without_nftables().enter(sys.argv[2:])
    text = Path(sys.argv[1]).read_text(encoding="utf-8")
    os.umask(int(settings(text, "UMask")[0], 8))
    of_unit(text).enter(sys.argv[2:])
