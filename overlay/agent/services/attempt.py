"""One attempt of a health check, from inside a container's namespace to its own address.

Owns: what passes: a connection, or a status from 200 to 399. Does not: know services or records.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import re
import socket
import struct
from subprocess import Popen
from typing import NamedTuple

from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.services import installed_check
from overlay.core.services.service import HealthCheck
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.model import Ip, ip_text

_HEAD_SIZE = 64  # of an answer: its first line has the status
_PART_SIZE = 4096
_GET_FLAGS, _UP = 0x8913, 1  # netdevice(7): SIOCGIFFLAGS, IFF_UP
_ANSWER_SIZE_MAX = 65_536  # what follows is not read
_STATUS = re.compile(rb"HTTP/1\.[01] ([0-9]{3})\b")


_ENDED = "the container has ended"


class CheckPlace(NamedTuple):
    """Where to try: a container's namespace, and an address and port in it."""

    netns_path: str
    identity: tuple[int, int]
    ip: Ip
    port: int
    service: str


async def attempt(kernel: KernelThread, check: HealthCheck, place: CheckPlace) -> str:
    """Try once; return why that failed, or nothing."""
    try:
        async with asyncio.timeout(check.timeout_s):
            if check.kind == "exec":
                return await _run(kernel, check.argument, place)
            connection = await kernel.call(_socket_inside, place)
            if connection is None:
                return _ENDED
            with connection:
                if not _has_loopback(connection):
                    return "its loopback is down (ip link set lo up, in the container)"
                return await _exchange(connection, check, place)
    except TimeoutError:
        return f"no answer within {check.timeout_s:g} s"
    except OSError as error:
        return os.strerror(error.errno).lower() if error.errno else str(error)
    except OverlayError as error:
        return str(error)


async def _run(kernel: KernelThread, name: str, place: CheckPlace) -> str:
    problem = installed_check.installation_problem(name)
    if problem:
        return problem
    variables = installed_check.environment(place.service, place.ip, place.port)
    place_of = (place.netns_path, place.identity)
    starting = asyncio.ensure_future(kernel.call(installed_check.start, name, *place_of, variables))
    try:
        process = await asyncio.shield(starting)
    except asyncio.CancelledError:
        starting.add_done_callback(_abandon)
        raise
    return _ENDED if process is None else await installed_check.outcome(process)


def _abandon(starting: asyncio.Future[Popen[bytes] | None]) -> None:
    process = None if starting.exception() else starting.result()
    if process is not None:
        installed_check.abandon(process)


async def _exchange(connection: socket.socket, check: HealthCheck, place: CheckPlace) -> str:
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, (ip_text(place.ip), place.port))
    if check.kind == "tcp":
        return ""
    host = ip_text(place.ip) if len(place.ip) == 4 else f"[{ip_text(place.ip)}]"
    lines = (f"GET {check.argument} HTTP/1.1", f"Host: {host}:{place.port}", "User-Agent: overlayd")
    request = "\r\n".join((*lines, "Connection: close", "", ""))
    await loop.sock_sendall(connection, request.encode("ascii"))
    answer = await _read_answer(connection)
    status = _STATUS.match(answer)
    if status is None:
        return "the answer is not HTTP"
    return "" if 200 <= int(status[1]) < 400 else f"status {int(status[1])}"


async def _read_answer(connection: socket.socket) -> bytes:
    """Return the beginning of an answer, read to its end: a server logs one that nobody takes."""
    loop = asyncio.get_running_loop()
    head, size = b"", 0
    with contextlib.suppress(ConnectionError):
        while size < _ANSWER_SIZE_MAX:
            part = await loop.sock_recv(connection, _PART_SIZE)
            if not part:
                break
            head += part[: max(0, _HEAD_SIZE - size)]
            size += len(part)
    return head


def _has_loopback(inside: socket.socket) -> bool:
    """Return whether the loopback of a socket's namespace is up: own addresses are behind it."""
    request = struct.pack("16sh14x", b"lo", 0)
    _, flags = struct.unpack("16sh14x", fcntl.ioctl(inside, _GET_FLAGS, request))
    return bool(flags & _UP)


def _socket_inside(place: CheckPlace) -> socket.socket | None:
    """Return a TCP socket in a container; None if it is gone."""
    fd = netns.open_same(place.netns_path, place.identity)
    if fd is None:
        return None
    family = socket.AF_INET if len(place.ip) == 4 else socket.AF_INET6
    with netns.closing(fd), netns.inside(fd):
        return socket.socket(
            family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC
        )
