#!/usr/bin/env python3
"""Run a command that may start programs of arm64, by an emulator, on a machine of another kind.

    scripts/foreign.py EMULATOR COMMAND [ARGUMENT...]

The command runs as root of a user namespace with a binfmt_misc of its own (Linux 6.7 and newer),
and with mounts and processes of its own: nothing is registered on this machine. It has all users
and groups below 65536, and no device nodes can be made. EMULATOR is a static qemu-aarch64. Needs
root.
"""

from __future__ import annotations

import ctypes
import os
import sys
from pathlib import Path
from typing import NoReturn

_NEW_USER, _NEW_MOUNT, _NEW_PROCESSES = 0x10000000, 0x00020000, 0x20000000
_REGISTER = Path("/proc/sys/fs/binfmt_misc/register")
# An ELF file of 64 bits, little endian, for AArch64 (183): elf(5), and Linux's binfmt-misc.rst.
_MAGIC = rb"\x7fELF\x02\x01\x01" + rb"\x00" * 9 + rb"\x02\x00\xb7\x00"
_MASK = rb"\xff" * 7 + rb"\x00" + rb"\xff" * 8 + rb"\xfe\xff\xff\xff"
_MAP = "0 0 65536"


def run(emulator: str, command: list[str]) -> int:
    """Run a command in new namespaces; return its exit code."""
    is_new, told = os.pipe()
    is_mapped, mapped = os.pipe()
    child = os.fork()
    if not child:
        _unshare(_NEW_USER | _NEW_MOUNT | _NEW_PROCESSES)
        os.write(told, b"1")
        os.read(is_mapped, 1)
        inner = os.fork()
        if not inner:
            _become(emulator, command)
        os._exit(os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1]) & 0xFF)
    os.read(is_new, 1)
    for kind in ("uid_map", "gid_map"):
        Path(f"/proc/{child}/{kind}").write_text(_MAP, encoding="ascii")
    os.write(mapped, b"1")
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def _unshare(kinds: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(kinds):
        number = ctypes.get_errno()
        sys.exit(f"foreign: no new namespaces: {os.strerror(number)}")


def _become(emulator: str, command: list[str]) -> NoReturn:
    """Have the kernel start programs of arm64 by the emulator, and execute the command."""
    script = (
        "mount --make-rprivate / && mount -t proc proc /proc && "
        "mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc && "
        'printf %s "$RULE" > "$REGISTER" && unset RULE REGISTER && exec "$@"'
    )
    rule = b":qemu-aarch64:M::" + _MAGIC + b":" + _MASK + b":" + os.fsencode(emulator) + b":F"
    environment = os.environb | {b"RULE": rule, b"REGISTER": os.fsencode(_REGISTER)}
    os.execve("/bin/sh", ["sh", "-c", script, "sh", *command], dict(environment))  # noqa: S606


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: scripts/foreign.py EMULATOR COMMAND [ARGUMENT...]")
    sys.exit(run(str(Path(sys.argv[1]).resolve()), sys.argv[2:]))
