"""Where the page listens, and what is wrong with an address."""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

import pytest
from overlay.errors import ConflictError, NotFoundError, UsageError
from overlay.web import listen


@pytest.mark.parametrize(
    ("text", "is_local"),
    [
        ("127.0.0.1:7950", True),
        ("[::1]:7950", True),
        ("unix:/run/overlayd/web.sock", True),
        ("192.0.2.1:7950", False),
        ("0.0.0.0:7950", False),
        ("[::]:7950", False),
    ],
)
def test_an_address_is_local_or_not(text: str, *, is_local: bool) -> None:
    """And is written as it was typed."""
    address = listen.parse(text)

    assert address.is_local is is_local
    assert address.text == text


@pytest.mark.parametrize(
    "text", ["", "7950", "localhost:7950", "127.0.0.1", "127.0.0.1:0", "::1:7950", "unix:web.sock"]
)
def test_what_is_no_address_is_refused(text: str) -> None:
    """With an example."""
    with pytest.raises(UsageError) as caught:
        listen.parse(text)

    assert caught.value.field == "listen"
    assert "Such as" in caught.value.hint


async def test_a_port_in_use_is_named() -> None:
    """With how to find its owner."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = listen.WebAddress("127.0.0.1", other.getsockname()[1])
        with pytest.raises(ConflictError, match="is in use") as caught:
            await listen.bind(address, "overlayd")

    assert "ss -lntp" in caught.value.hint


async def test_an_address_of_another_host_is_refused() -> None:
    """The kernel has no such address."""
    with pytest.raises(NotFoundError, match="this host has no address"):
        await listen.bind(listen.WebAddress("192.0.2.77", 7950), "overlayd")


async def test_a_socket_is_for_its_group(tmp_path: Path) -> None:
    """And for nobody else; its name goes with it."""
    address = listen.WebAddress("", 0, tmp_path / "web.sock")
    group = "daemon" if os.geteuid() == 0 else "no-such-group"
    listener = await listen.bind(address, group)
    mode = stat.S_IMODE((tmp_path / "web.sock").stat().st_mode)

    assert mode == (0o660 if os.geteuid() == 0 else 0o600)
    with pytest.raises(ConflictError, match="is in use"):
        await listen.bind(address, group)
    listener.close()
    listen.remove(address)
    assert not (tmp_path / "web.sock").exists()


async def test_a_file_is_not_replaced_by_a_socket(tmp_path: Path) -> None:
    """A wrong path must not cost a file."""
    path = tmp_path / "notes"
    path.write_text("mine")

    with pytest.raises(ConflictError, match="is not a socket"):
        await listen.bind(listen.WebAddress("", 0, path), "overlayd")
    assert path.read_text() == "mine"
    with pytest.raises(NotFoundError, match="no folder"):
        await listen.bind(listen.WebAddress("", 0, tmp_path / "none" / "web.sock"), "overlayd")
