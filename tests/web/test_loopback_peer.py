"""The process at the other end of a connection within this host is found."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest
from overlay.web.loopback_peer import find_owner, may_look, owner_of

# As proc(5) writes them: a listening socket, both ends of a connection, one that has ended.
TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:1F0E 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 11 1
   1: 0100007F:C350 0100007F:1F0E 01 00000000:00000000 00:00000000 00000000  1000        0 12 1
   2: 0100007F:1F0E 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 13 1
   3: 0100007F:C351 0100007F:1F0E 06 00000000:00000000 03:00000F00 00000000     0        0 0 3
""".splitlines()
SERVER = ("127.0.0.1", 7950)


def test_the_owner_of_the_clients_end_is_found() -> None:
    """Not that of the server's end."""
    assert find_owner(TABLE, ("127.0.0.1", 50000), SERVER) == 1000


def test_a_connection_that_has_ended_has_no_owner() -> None:
    """The kernel shows root for it."""
    assert find_owner(TABLE, ("127.0.0.1", 50001), SERVER) is None
    assert find_owner(TABLE, ("127.0.0.1", 50002), SERVER) is None


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_a_real_connection_is_this_users(family: socket.AddressFamily, host: str) -> None:
    """In the table of its family."""
    with (
        socket.create_server((host, 0), family=family) as server,
        socket.create_connection(server.getsockname()[:2]) as _client,
    ):
        accepted, _ = server.accept()
        with accepted:
            assert owner_of(accepted) == os.geteuid()


def test_a_unix_connection_is_this_users(tmp_path: Path) -> None:
    """By its credentials."""
    with socket.socket(socket.AF_UNIX) as server, socket.socket(socket.AF_UNIX) as client:
        server.bind(str(tmp_path / "web.sock"))
        server.listen()
        client.connect(str(tmp_path / "web.sock"))
        accepted, _ = server.accept()
        with accepted:
            assert owner_of(accepted) == os.geteuid()


def test_only_users_of_the_agents_api_may_look() -> None:
    """Root, this process's user, and the members of the group."""
    group = "daemon"  # uid 1 has it on every Debian

    assert may_look(0, group)
    assert may_look(os.geteuid(), group)
    assert may_look(1, group)
    assert not may_look(65534, group)
    assert not may_look(4_000_000, group)
    assert not may_look(1, "no-such-group")
