"""HTTP/1.1 over a UNIX socket, synchronous (RFC 9112).

Python's http.client reads headers with the email package, whose import takes a third of a
command's time. Used by the command line for the agent, and by the agent for Docker's, Podman's and
Incus's sockets.

Owns: the connection, requests, and how an answer's body ends. Does not: know any API.
"""

from __future__ import annotations

import os
import socket

from overlay import limits

TYPE_CHECKING = False  # typing itself takes a tenth of a command's time to import
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import TracebackType
    from typing import BinaryIO, Final, Self

_TIMEOUT_MIN_S: Final = 0.001  # a timeout of 0 would be a socket that does not block
_READ_SIZE: Final = 64 * 1024
_LINE_SIZE_MAX: Final = 64 * 1024
_UNRESERVED: Final = frozenset(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"  # RFC 3986 section 2.3
)
_HEX_DIGITS: Final = frozenset(b"0123456789abcdefABCDEF")
_NO_CONTENT, _NOT_MODIFIED = 204, 304
_INTERIM_MAX: Final = 8  # responses before the one that counts
_DIGITS_MAX: Final = 15  # of a length


class HttpError(Exception):
    """The answer is not HTTP, or ended early."""


def quote(text: str, errors: str = "strict") -> str:
    """Return `text` for use inside a URL's path or query (RFC 3986 section 2.1).

    `errors` says what happens to characters that UTF-8 does not have, as for `str.encode`.
    """
    raw = text.encode("utf-8", errors)
    return "".join(chr(byte) if byte in _UNRESERVED else f"%{byte:02X}" for byte in raw)


class UnixConnection:
    """An HTTP/1.1 connection to the server at a UNIX socket."""

    def __init__(self, path: str, timeout_s: float) -> None:
        self.timeout = max(timeout_s, _TIMEOUT_MIN_S)
        self._path = path
        self._socket: socket.socket | None = None
        self._file: BinaryIO | None = None

    def connect(self) -> None:
        """Connect to the socket.

        Raises FileNotFoundError, ConnectionRefusedError, PermissionError or another OSError.
        """
        if len(os.fsencode(self._path)) > limits.SOCKET_PATH_SIZE_MAX:
            raise OSError(
                f"the socket path is longer than {limits.SOCKET_PATH_SIZE_MAX} bytes: {self._path}"
            )
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            made.settimeout(self.timeout)
            made.connect(self._path)
        except OSError:
            made.close()
            raise
        self._socket, self._file = made, made.makefile("rb")

    def close(self) -> None:
        """Close the connection; closing it again does nothing."""
        for each in (self._file, self._socket):
            if each is not None:
                each.close()
        self._socket = self._file = None

    def wait_forever(self) -> None:
        """Read without a timeout from now on."""
        if self._socket is not None:
            self._socket.settimeout(None)

    def request(
        self, method: str, path: str, body: bytes | None, headers: Mapping[str, str]
    ) -> HttpResponse:
        """Send a request, and return the response when its head is there.

        The body of the response before must have been read. Raises OSError (TimeoutError included)
        and HttpError.
        """
        lines = [f"{method} {path} HTTP/1.1", "Host: localhost"]
        lines += (f"{name}: {value}" for name, value in headers.items())
        if body is not None or method == "POST":
            lines.append(f"Content-Length: {len(body or b'')}")
        if any(not line.isascii() or not line.isprintable() for line in lines) or " " in path:
            raise HttpError(f"{method} {path!r} cannot be sent")
        head = "\r\n".join([*lines, "", ""]).encode("ascii")
        if self._socket is None:
            self.connect()
        assert self._socket is not None
        assert self._file is not None
        self._socket.sendall(head + (body or b""))
        return _read_response(self._file, has_body=method != "HEAD")


class HttpResponse:
    """A response whose body has not been read yet."""

    def __init__(self, status: int, headers: Mapping[str, str], body: Iterator[bytes]) -> None:
        self.status = status
        self.headers = headers
        """The values by names in lower case."""
        self._body = body
        self._held = b""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop reading; the owner of the connection closes it."""

    def read(self, size_max: int | None = None) -> bytes:
        """Return the body, or its next `size_max` bytes; raises OSError and HttpError."""
        pieces, size = [self._held], len(self._held)
        while size_max is None or size < size_max:
            piece = next(self._body, b"")
            if not piece:
                break
            pieces.append(piece)
            size += len(piece)
        found = b"".join(pieces)
        end = size if size_max is None else min(size, size_max)
        self._held = found[end:]
        return found[:end]

    def readline(self) -> bytes:
        """Return the next line with its end, or what remains; raises OSError and HttpError."""
        pieces = [self._held]
        while b"\n" not in pieces[-1]:
            piece = next(self._body, b"")
            if not piece:
                break
            pieces.append(piece)
        line, end, self._held = b"".join(pieces).partition(b"\n")
        return line + end


def send(
    connection: UnixConnection,
    method: str,
    path: str,
    body: bytes | None = None,
    content_type: str = "application/json",
) -> HttpResponse:
    """Send one request and return the response, its body not read yet.

    Raises OSError (TimeoutError included) and HttpError.
    """
    headers = {"Content-Type": content_type} if body is not None else {}
    return connection.request(method, path, body, headers)


def _read_response(file: BinaryIO, *, has_body: bool) -> HttpResponse:
    for _ in range(_INTERIM_MAX + 1):
        status = _read_status(file)
        headers = _read_headers(file)
        if not 100 <= status < 200:
            break
    else:
        raise HttpError("no answer but interim ones")
    is_empty = not has_body or status in (_NO_CONTENT, _NOT_MODIFIED)
    return HttpResponse(status, headers, iter(()) if is_empty else _body(file, headers))


def _read_status(file: BinaryIO) -> int:
    line = _read_line(file)
    version, _, rest = line.partition(b" ")
    code = rest[:3]
    if version not in (b"HTTP/1.1", b"HTTP/1.0") or not code.isdigit() or rest[3:4] not in b" ":
        raise HttpError(f"not an answer in HTTP: {line[:60]!r}")
    return int(code)


def _read_headers(file: BinaryIO) -> dict[str, str]:
    found: dict[str, str] = {}
    while line := _read_line(file):
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or len(found) >= limits.HTTP_HEADERS_MAX:
            raise HttpError(f"not a header of HTTP: {line[:60]!r}")
        found[name.strip().lower()] = value.strip()
    return found


def _read_line(file: BinaryIO) -> bytes:
    line = file.readline(_LINE_SIZE_MAX)
    if not line.endswith(b"\n"):
        raise HttpError("the connection was closed without an answer" if not line else "cut short")
    return line.rstrip(b"\r\n")


def _body(file: BinaryIO, headers: Mapping[str, str]) -> Iterator[bytes]:
    """Yield what there is of the body as it comes (RFC 9112 section 6.3)."""
    length = headers.get("content-length", "")
    if headers.get("transfer-encoding", "").lower() == "chunked":
        return _chunks(file)
    if length:
        if not (length.isascii() and length.isdecimal() and len(length) <= _DIGITS_MAX):
            raise HttpError(f"not a length: {length[:60]!r}")
        return _sized(file, int(length))
    return _until_closed(file)


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while size := _chunk_size(_read_line(file)):
        yield from _sized(file, size)
        if _read_line(file):
            raise HttpError("a chunk is longer than announced")
    while _read_line(file):  # trailers
        pass


def _chunk_size(line: bytes) -> int:
    digits = line.partition(b";")[0].strip()
    if not digits or not _HEX_DIGITS.issuperset(digits):
        raise HttpError(f"not the size of a chunk: {line[:60]!r}")
    return int(digits, 16)


def _sized(file: BinaryIO, size: int) -> Iterator[bytes]:
    while size > 0:
        piece = _read_some(file, min(size, _READ_SIZE))
        if not piece:
            raise HttpError(f"the answer ended {size} bytes early")
        size -= len(piece)
        yield piece


def _until_closed(file: BinaryIO) -> Iterator[bytes]:
    while piece := _read_some(file, _READ_SIZE):
        yield piece


def _read_some(file: BinaryIO, size: int) -> bytes:
    found: bytes = file.read1(size)  # type: ignore[attr-defined]  # of a buffered reader
    return found
