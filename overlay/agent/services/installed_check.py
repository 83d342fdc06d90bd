"""One attempt of a health check by a program that the operator of this host has installed.

A record of the cluster names the program, and nothing else: neither its place nor an argument.
It runs as root, in the container's network namespace and otherwise on the host, with what
the agent may do at most.

Owns: which files are run, and their processes. Does not: know services or records.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import stat
import subprocess
from pathlib import Path
from typing import Final

from overlay import limits
from overlay.kernel import netns
from overlay.model import Ip, ip_text, printable

CHECKS_DIRECTORY: Final = Path("/etc/overlayd/checks")
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_SHARED: Final = stat.S_IWGRP | stat.S_IWOTH


def installation_problem(name: str) -> str:
    """Return why this host does not run the check with a name, or nothing."""
    path = CHECKS_DIRECTORY / name
    try:
        for each in (path.parent.parent, path.parent, path):
            found = each.lstat()
            expected = stat.S_ISREG if each == path else stat.S_ISDIR
            if not expected(found.st_mode):
                return f"{each} is not a {'regular file' if each == path else 'directory'}"
            if found.st_uid != 0 or found.st_mode & _SHARED:
                return f"{each} must be root's, and writable for nobody else"
    except FileNotFoundError:
        return f"{path} is not installed on this host"
    except OSError as error:
        return f"{path}: {error.strerror}"
    return "" if found.st_mode & stat.S_IXUSR else f"{path} is not executable (chmod 755)"


def environment(service: str, ip: Ip, port: int) -> dict[str, str]:
    """Return the environment of a check."""
    return {
        "PATH": _PATH,
        "OVERLAYD_SERVICE": service,
        "OVERLAYD_ADDRESS": ip_text(ip),
        "OVERLAYD_PORT": str(port),
    }


def start(
    name: str, netns_path: str, identity: tuple[int, int], variables: dict[str, str]
) -> subprocess.Popen[bytes] | None:
    """Start a check in a container's namespace, in a group of its own; None if that is gone.

    The thread that calls this enters the namespace, and its child stays there. Raises OSError.
    """
    fd = netns.open_same(netns_path, identity)
    if fd is None:
        return None
    with netns.closing(fd), netns.inside(fd):
        return subprocess.Popen(
            [CHECKS_DIRECTORY / name],
            env=variables,
            cwd="/",
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


def abandon(process: subprocess.Popen[bytes]) -> None:
    """End a check that nobody waits for; Python reaps it when it starts the next one."""
    assert process.stdout is not None, "it was started with a pipe"
    process.stdout.close()
    _kill(process)


def _kill(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError):  # not reaped yet: the number is its own
        os.killpg(process.pid, signal.SIGKILL)


async def outcome(process: subprocess.Popen[bytes]) -> str:
    """Wait until a check ends; return why it failed, or nothing.

    Its whole group ends with it, also when this is cancelled.
    """
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    assert process.stdout is not None, "it was started with a pipe"
    try:
        pidfd = os.pidfd_open(process.pid)
    except OSError:  # without descriptors nobody would wait for it
        abandon(process)
        raise
    output = _Output(process.stdout.fileno())
    loop.add_reader(pidfd, ended.set)
    try:
        await ended.wait()
        output.read()
    finally:
        loop.remove_reader(pidfd)
        output.close()
        process.stdout.close()
        _kill(process)
        try:
            await _wait_until_ended(pidfd)
        finally:  # also if this is cancelled once more
            os.close(pidfd)
        code = process.poll()
    if code == 0:
        return ""
    ending = f"signal {-code}" if code is not None and code < 0 else f"exit status {code}"
    return f"{ending}: {output.first_line}" if output.first_line else ending


async def _wait_until_ended(pidfd: int) -> None:
    """Wait until a killed process can be reaped; for one that the kernel holds up, not for long."""
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(pidfd, ended.set)
    try:
        async with asyncio.timeout(limits.CHECK_KILL_S):
            await ended.wait()
    except TimeoutError:
        pass
    finally:
        loop.remove_reader(pidfd)


class _Output:
    """The beginning of what a check prints; one that prints too much is stopped by its pipe."""

    def __init__(self, fd: int) -> None:
        self._fd, self._head, self._size = fd, b"", 0
        os.set_blocking(fd, False)
        asyncio.get_running_loop().add_reader(fd, self.read)

    @property
    def first_line(self) -> str:
        """Return its first line, as far as it is text."""
        return printable(self._head.partition(b"\n")[0].decode("ascii", "replace")).strip()

    def read(self) -> None:
        """Read what there is."""
        try:
            part = os.read(self._fd, limits.CHECK_OUTPUT_PART_SIZE)
        except BlockingIOError:
            return
        self._size += len(part)
        self._head += part[: max(0, limits.CHECK_LINE_SIZE - len(self._head))]
        if not part or self._size >= limits.CHECK_OUTPUT_SIZE_MAX:
            self.close()

    def close(self) -> None:
        """Read no further."""
        asyncio.get_running_loop().remove_reader(self._fd)
