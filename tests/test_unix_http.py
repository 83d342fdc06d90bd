"""HTTP over a UNIX socket, with servers that answer byte by byte what a test says."""

from __future__ import annotations

import socket
import threading
import urllib.parse
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from overlay import limits
from overlay.unix_http import HttpError, UnixConnection, quote, send

Serve = Callable[..., UnixConnection]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """Return a function that connects to a server with these answers, one for each request."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        opened: list[UnixConnection] = []
        asked: list[bytes] = []

        def answer(answers: tuple[bytes, ...], *, stays: bool) -> None:
            with listener.accept()[0] as client, suppress(OSError):  # whoever asks may go away
                for each in answers:
                    asked.append(client.recv(65536))
                    step = 1 if len(each) < 1000 else len(each)
                    for start in range(0, len(each), step):
                        client.send(each[start : start + step])
                if stays:
                    client.recv(1)

        def make(*answers: bytes, stays: bool = False) -> UnixConnection:
            threading.Thread(
                target=answer, args=(answers,), kwargs={"stays": stays}, daemon=True
            ).start()
            opened.append(UnixConnection(str(tmp_path / "s"), 10.0))
            return opened[-1]

        make.asked = asked  # type: ignore[attr-defined]
        yield make
        for each in opened:
            each.close()


SIZED = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"
CHUNKED = (
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"4;x=y\r\nab\nc\r\n6\r\nd\nefgh\r\n0\r\nTrailer: x\r\n\r\n"
)


def test_a_body_with_a_length_ends_there(serve: Serve) -> None:
    """The connection serves the next request."""
    connection = serve(SIZED, b"HTTP/1.0 404 \r\nContent-Length: 0\r\n\r\n")

    with send(connection, "GET", "/one") as first:
        assert (first.status, first.read()) == (200, b"abc")
    second = send(connection, "POST", "/two", b"{}")
    assert (second.status, second.read()) == (404, b"")
    one, two = serve.asked  # type: ignore[attr-defined]
    assert one == b"GET /one HTTP/1.1\r\nHost: localhost\r\n\r\n"
    assert two.endswith(b"Content-Type: application/json\r\nContent-Length: 2\r\n\r\n{}")


def test_a_body_in_chunks_is_put_together(serve: Serve) -> None:
    """Chunks may end within a line, and trailers are left out."""
    lines = send(serve(CHUNKED), "GET", "/")

    assert [lines.readline() for _ in range(4)] == [b"ab\n", b"cd\n", b"efgh", b""]
    assert send(serve(CHUNKED), "GET", "/").read() == b"ab\ncd\nefgh"


def test_a_body_without_a_length_ends_with_the_connection(serve: Serve) -> None:
    """Bytes beyond a bound are read later."""
    response = send(serve(b"HTTP/1.1 200 OK\r\nX: y\r\n\r\n0123456789"), "GET", "/")

    assert response.headers == {"x": "y"}
    assert (response.read(4), response.read()) == (b"0123", b"456789")


def test_interim_and_empty_answers(serve: Serve) -> None:
    """100 comes before the answer; 204 and answers to HEAD have no body."""
    interim = serve(b"HTTP/1.1 100 Continue\r\n\r\n" + SIZED)
    assert send(interim, "GET", "/").read() == b"abc"
    assert send(serve(b"HTTP/1.1 204 X\r\n\r\n", stays=True), "GET", "/").read() == b""
    head = serve(SIZED.removesuffix(b"abc"), stays=True)
    assert send(head, "HEAD", "/").read() == b""


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nContent-Length: -3\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5_000 + b"\r\n\r\nabc",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1_000 + b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno header\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"a: b\r\n" + b"X" * 70_000,
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.1 2000\r\n\r\n",
        b"SSH-2.0-x\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n"
        + b"".join(b"h%d: x\r\n" % n for n in range(limits.HTTP_HEADERS_MAX + 1)),
    ],
)
def test_what_is_no_answer_is_refused(serve: Serve, answer: bytes) -> None:
    """Whether its head or its body is wrong, or it ends early."""
    with pytest.raises((HttpError, OSError)):
        send(serve(answer), "GET", "/").read()


@pytest.mark.parametrize("path", ["/a b", "/a\r\nHost: x", "/\u00fc"])
def test_a_path_that_is_not_quoted_is_not_sent(path: str) -> None:
    """It could be taken for another request."""
    with pytest.raises(HttpError, match="cannot be sent"):
        send(UnixConnection("/nowhere", 1.0), "GET", path)


def test_a_silent_server_is_waited_for_no_longer_than_asked(tmp_path: Path) -> None:
    """Raises TimeoutError."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "s"))
        listener.listen()
        connection = UnixConnection(str(tmp_path / "s"), 0.01)
        with pytest.raises(TimeoutError):
            send(connection, "GET", "/")
        connection.close()


@given(st.text())
def test_texts_are_quoted_as_everywhere(text: str) -> None:
    """As the standard library does, of which this is a part."""
    raw = text.encode("utf-8", "surrogatepass")
    assert quote(text, "surrogatepass") == urllib.parse.quote_from_bytes(raw, safe="")
