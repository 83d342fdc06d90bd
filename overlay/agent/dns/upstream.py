"""Forward DNS queries to other resolvers, from the host's namespace.

Owns: the host's list of resolvers, a single query by UDP or TCP, and the framing of messages on
TCP connections, and which messages answer a query. Does not: read answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import secrets
import socket
import struct
from collections.abc import Sequence
from pathlib import Path

from dnslib import RCODE

from overlay import limits
from overlay.agent.dns import name_case
from overlay.model import Ip

PORT = 53
TCP_WAIT_S = 2.0
CASE_TCP_WAIT_S = 0.5  # after an answer in another case: some resolvers have no TCP
UDP_WAITS_S = (1.0, 1.5, 2.0)  # after each time that a query is sent: a datagram may be lost
_ID_SIZE, _HEADER_SIZE = 2, 12  # RFC 1035 section 4.1.1
_QR, _TC, _RCODE = 0x80, 0x02, 0x0F  # in the third, the third and the fourth byte of a message
_LABEL_SIZE_MAX = 63  # RFC 1035 section 2.3.4; a larger number is a pointer
RESOLV_CONF = Path("/etc/resolv.conf")
STUB_RESOLV_CONF = Path("/run/systemd/resolve/resolv.conf")  # systemd-resolved(8)
_STUB = "127.0.0.53"
# What Docker and Podman write into a container where the host has nothing usable.
_OF_ENGINES = ("8.8.8.8", "8.8.4.4", "2001:4860:4860::8888", "2001:4860:4860::8844")


def host_resolvers(path: Path = RESOLV_CONF) -> list[str]:
    """Return the addresses of the host's name servers, three at most (resolv.conf(5))."""
    found = [words[1] for words in _lines(path) if len(words) > 1 and words[0] == "nameserver"]
    return [word for word in found if _is_address(word)][: limits.DNS_SERVERS_MAX]


def engine_resolvers(path: Path = RESOLV_CONF, of_stub: Path = STUB_RESOLV_CONF) -> tuple[Ip, ...]:
    """Return the resolvers that container engines give to containers, from the host's file.

    Those on the loopback are useless in a container. In place of the stub of systemd-resolved
    alone (`nameserver 127.0.0.53`), engines give the resolvers behind it; without any, Google's.
    """
    words = _behind_stub(path, of_stub)
    found = [ipaddress.ip_address(word) for word in words if "%" not in word]
    # An IPv4 one may be link-local: that of some clouds is, and a container routes to it.
    usable = [each for each in found if not each.is_loopback and not _needs_zone(each)]
    return tuple(Ip(each.packed) for each in usable or map(ipaddress.ip_address, _OF_ENGINES))


def is_only_on_loopback(path: Path = RESOLV_CONF, of_stub: Path = STUB_RESOLV_CONF) -> bool:
    """Return whether all resolvers of the host are on its loopback, so no container reaches any."""
    words = _behind_stub(path, of_stub)
    return bool(words) and all(
        ipaddress.ip_address(word.partition("%")[0]).is_loopback for word in words
    )


def _behind_stub(path: Path, of_stub: Path) -> list[str]:
    words = host_resolvers(path)
    return host_resolvers(of_stub) if words == [_STUB] else words


def _needs_zone(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    return ip.version == 6 and ip.is_link_local


def host_search(path: Path = RESOLV_CONF) -> list[str]:
    """Return the host's search domains: those of the last line that has some (resolv.conf(5))."""
    found = [words[1:] for words in _lines(path) if words[0] in ("search", "domain")]
    return [word for word in found[-1] if word != "."] if found else []


def search_list(domain: str, of_host: Sequence[str]) -> list[str]:
    """Return a container's search list: overlayd's domain, then the host's.

    It ends where a resolver would ignore it: after 6 words (glibc) or 255 bytes (musl).
    """
    found = list(dict.fromkeys([domain, *of_host]))[: limits.DNS_SEARCH_MAX]
    while len(" ".join(found)) > limits.DNS_SEARCH_SIZE_MAX and len(found) > 1:
        found.pop()
    return found


def _lines(path: Path) -> list[list[str]]:
    """Return the words of a file's lines, without comments; none if it cannot be read."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        lines = path.read_text(encoding="utf-8").splitlines()
        return [line.split() for line in lines if line.strip() and line[0] not in "#;"]
    return []


def _is_address(word: str) -> bool:
    with contextlib.suppress(ValueError):
        return bool(ipaddress.ip_address(word))
    return False


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
