"""Runs a command under what deploy/overlayd.service allows, without systemd: system calls, memory.

A program for tests: `python cage.py UNIT COMMAND ...`. The groups of system calls are systemd's own
(systemd-analyze syscall-filter); the filter is made by libseccomp, as systemd makes it.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_PR_SET_NO_NEW_PRIVS = 38  # linux/prctl.h
_PR_SET_MDWE, _MDWE_REFUSE_EXEC_GAIN = 65, 1
_ACT_ALLOW, _ACT_ERRNO_EPERM = 0x7FFF0000, 0x00050001  # seccomp.h


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


def setting(unit: str, name: str) -> str:
    """Return a setting of the unit; empty if it has none."""
    found = [line for line in unit.splitlines() if line.startswith(f"{name}=")]
    return found[-1].partition("=")[2] if found else ""


def main() -> None:
    """Build the cage and enter it."""
    unit = Path(sys.argv[1]).read_text(encoding="utf-8")
    libc = ctypes.CDLL(None, use_errno=True)
    seccomp = ctypes.CDLL("libseccomp.so.2", use_errno=True)
    seccomp.seccomp_init.restype = ctypes.c_void_p
    context = ctypes.c_void_p(seccomp.seccomp_init(_ACT_ERRNO_EPERM))
    # systemd allows these always: it has to start the program.
    words = ["@default", "execve", *setting(unit, "SystemCallFilter").split()]
    for name in sorted({call for word in words for call in calls(word)}):
        number = seccomp.seccomp_syscall_resolve_name(name.encode())
        if number >= 0:
            seccomp.seccomp_rule_add(context, _ACT_ALLOW, number, 0)
    if setting(unit, "MemoryDenyWriteExecute") == "yes":
        assert libc.prctl(_PR_SET_MDWE, _MDWE_REFUSE_EXEC_GAIN, 0, 0, 0) == 0
    assert libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0
    assert seccomp.seccomp_load(context) == 0
    os.execvp(sys.argv[2], sys.argv[2:])  # noqa: S606 - the command takes this process's place


if __name__ == "__main__":
    main()
