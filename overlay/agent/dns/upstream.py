"""Forward DNS queries to other resolvers, from the host's namespace.

Owns: a single query by UDP or TCP, the framing of messages on TCP connections, and which messages
answer a query. Does not: read answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
import socket
import struct

from dnslib import RCODE

from overlay.agent.dns import name_case

PORT = 53
TCP_WAIT_S = 2.0
CASE_TCP_WAIT_S = 0.5  # after an answer in another case: some resolvers have no TCP
UDP_WAITS_S = (1.0, 1.5, 2.0)  # after each time that a query is sent: a datagram may be lost
_ID_SIZE, _HEADER_SIZE = 2, 12  # RFC 1035 section 4.1.1
_QR, _TC, _RCODE = 0x80, 0x02, 0x0F  # in the third, the third and the fourth byte of a message
_LABEL_SIZE_MAX = 63  # RFC 1035 section 2.3.4; a larger number is a pointer


async def query(resolver: str, raw: bytes, *, by_tcp: bool) -> bytes | None:
    """Send a query to a resolver and return its answer; None if it does not answer.

    With `by_tcp` the query is sent by TCP first, and by UDP only if that fails. Its id and the
    case of its name are drawn here: the client's could be known to somebody who forges answers
    (RFC 5452 section 9.2). An answer by UDP in another case is either forged, or that of a
    resolver that does not keep the case: TCP tells, which nobody forges from elsewhere.
    """
    sent = name_case.mixed(secrets.token_bytes(_ID_SIZE) + raw[_ID_SIZE:])
    answer = await _query_by_tcp(resolver, sent, TCP_WAIT_S) if by_tcp else None
    if answer is None:
        answer = await _query_by_udp(resolver, sent)
        if answer is not None and not by_tcp and not name_case.is_kept(answer, sent):
            answer = await _query_by_tcp(resolver, sent, CASE_TCP_WAIT_S) or answer
    return None if answer is None else name_case.restored(raw[:_ID_SIZE] + answer[_ID_SIZE:], raw)


async def exchange(connection: socket.socket, place: tuple[str, int], raw: bytes) -> bytes:
    """Return the answer to a query by a socket, which has an address and no peer yet.

    Raises OSError or asyncio.IncompleteReadError.
    """
    loop = asyncio.get_running_loop()
    await loop.sock_connect(connection, place)
    if connection.type != socket.SOCK_STREAM:
        await loop.sock_sendall(connection, raw)
        return await _answer_from(connection, raw)
    reader, writer = await asyncio.open_connection(sock=connection)
    try:
        writer.write(framed(raw))
        return await read_framed(reader)
    finally:
        writer.close()


def has_question(message: bytes) -> bool:
    """Return whether a message has a question section: some failures have none."""
    return message[4:6] != b"\0\0"


def is_truncated(message: bytes) -> bool:
    """Return whether a message says that it is not whole (RFC 1035 section 4.1.1, TC)."""
    return bool(message[2] & _TC)


def framed(raw: bytes) -> bytes:
    """Return a message with its length in front (RFC 1035 section 4.2.2)."""
    return struct.pack("!H", len(raw)) + raw


async def read_framed(reader: asyncio.StreamReader) -> bytes:
    """Read one message from a TCP connection (RFC 1035 section 4.2.2).

    Raises asyncio.IncompleteReadError if the connection ends before that.
    """
    (size,) = struct.unpack("!H", await reader.readexactly(2))
    return await reader.readexactly(size)


async def _query_by_tcp(resolver: str, raw: bytes, wait_s: float) -> bytes | None:
    try:
        async with asyncio.timeout(wait_s):
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
    try:
        family, place = _place_of(resolver)
        with socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as connection:
            connection.connect(place)
            for wait_s in UDP_WAITS_S:
                await asyncio.get_running_loop().sock_sendall(connection, raw)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(wait_s):
                        return await _answer_from(connection, raw)
    except OSError:
        return None
    return None


async def _answer_from(connection: socket.socket, raw: bytes) -> bytes:
    """Return the answer to a query; ignore all others."""
    while True:
        answer = await asyncio.get_running_loop().sock_recv(connection, 65535)
        if _is_answer(answer, raw):
            return answer


def _place_of(resolver: str) -> tuple[socket.AddressFamily, tuple[str | int, ...]]:
    """Return a resolver's family and socket address.

    A link-local address has its interface behind a '%' (RFC 4007 section 11). Raises OSError if
    there is no such interface.
    """
    address, _, zone = resolver.partition("%")
    if ":" not in address:
        return socket.AF_INET, (address, PORT)
    scope = socket.if_nametoindex(zone) if zone and not zone.isdecimal() else int(zone or 0)
    return socket.AF_INET6, (address, PORT, 0, scope)


def _is_answer(answer: bytes, raw: bytes) -> bool:
    """Return whether a message answers a query: same id, same question (RFC 5452 section 9.1).

    A failure may be without a question, for a resolver that cannot read the query has none; so may
    a truncated answer, which only says that the whole answer is available by TCP.
    """
    if len(answer) < _HEADER_SIZE or answer[:_ID_SIZE] != raw[:_ID_SIZE] or not answer[2] & _QR:
        return False
    if not has_question(answer):
        is_failure = answer[3] & _RCODE not in (RCODE.NOERROR, RCODE.NXDOMAIN)
        return is_failure or is_truncated(answer)
    asked = _question_of(raw)
    return asked is not None and _question_of(answer) == asked


def _question_of(message: bytes) -> tuple[bytes, bytes] | None:
    """Return the name asked for, in lower case, and its type and class; None if unreadable."""
    end = _HEADER_SIZE
    while end < len(message) and message[end]:
        if message[end] > _LABEL_SIZE_MAX:
            return None
        end += 1 + message[end]
    kind = message[end + 1 : end + 5]
    return (message[_HEADER_SIZE:end].lower(), kind) if len(kind) == 4 else None
