"""Forward DNS queries to other resolvers, from the host's namespace.

Owns: the host's list of resolvers, a single query by UDP or TCP, and the framing of messages on
TCP connections. Does not: parse messages.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from pathlib import Path

PORT = 53
TIMEOUT_S = 2.0
_RESOLV_CONF = Path("/etc/resolv.conf")


def host_resolvers(path: Path = _RESOLV_CONF) -> list[str]:
    """Return the host's name servers, three at most (resolv.conf(5))."""
    with contextlib.suppress(OSError):
        words = [line.split() for line in path.read_text(encoding="utf-8").splitlines()]
        return [line[1] for line in words if len(line) > 1 and line[0] == "nameserver"][:3]
    return []


async def query(resolver: str, raw: bytes, *, by_tcp: bool) -> bytes | None:
    """Send a query to a resolver and return its answer; None if it does not answer.

    With `by_tcp` the query is sent by TCP first, and by UDP only if that fails.
    """
    answer = await _query_by_tcp(resolver, raw) if by_tcp else None
    return answer or await _query_by_udp(resolver, raw)


def framed(raw: bytes) -> bytes:
    """Return a message with its length in front (RFC 1035 section 4.2.2)."""
    return struct.pack("!H", len(raw)) + raw


async def read_framed(reader: asyncio.StreamReader) -> bytes:
    """Read one message from a TCP connection (RFC 1035 section 4.2.2).

    Raises asyncio.IncompleteReadError if the connection ends before that.
    """
    (size,) = struct.unpack("!H", await reader.readexactly(2))
    return await reader.readexactly(size)


async def _query_by_tcp(resolver: str, raw: bytes) -> bytes | None:
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_connection(resolver, PORT)
            try:
                writer.write(framed(raw))
                answer = await read_framed(reader)
            finally:
                writer.close()
    except (OSError, TimeoutError, asyncio.IncompleteReadError):
        return None
    return answer if _is_answer(answer, raw) else None


async def _query_by_udp(resolver: str, raw: bytes) -> bytes | None:
    loop = asyncio.get_running_loop()
    try:
        family = socket.AF_INET6 if ":" in resolver else socket.AF_INET
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as connection:
            connection.connect((resolver, PORT))
            await loop.sock_sendall(connection, raw)
            async with asyncio.timeout(TIMEOUT_S):
                while True:
                    answer = await loop.sock_recv(connection, 65535)
                    if _is_answer(answer, raw):
                        return answer
    except (OSError, TimeoutError):
        return None


def _is_answer(answer: bytes, raw: bytes) -> bool:
    return answer[:2] == raw[:2]  # the ids are the same
