"""Ports that a runtime keeps for a container, as Podman's conmon does."""

from __future__ import annotations

from pathlib import Path

import pytest
from overlay.core.dataplane.published_port import PortHolder
from overlay.kernel.host.port_check import is_held

ID = "0123456789abcdef" * 4
HEAD = "sl local_address rem_address st queues tr:tm retrnsmt uid timeout inode\n"
LINE = "   0: 00000000:{port:04X} 00000000:0000 {state} 0:0 00:0 0 0 0 {inode} 1\n"


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    """Return a /proc with sockets on port 8080, held by conmon."""
    (tmp_path / "net").mkdir()
    (tmp_path / "net/tcp").write_text(
        HEAD
        + LINE.format(port=8080, state="0A", inode=71)
        + LINE.format(port=8080, state="01", inode=72)
        + LINE.format(port=80, state="0A", inode=73)
    )
    process(tmp_path, 5, f"conmon\0-c\0{ID}\0", 71)
    process(tmp_path, 6, "nginx\0", 73)
    return tmp_path


def process(proc: Path, pid: int, command: str, inode: int) -> None:
    """Add a process that has one socket open."""
    (proc / f"{pid}/fd").mkdir(parents=True)
    (proc / f"{pid}/cmdline").write_text(command)
    (proc / f"{pid}/fd/3").symlink_to(f"socket:[{inode}]")


def test_a_port_kept_for_the_container_is_free_for_it(proc: Path) -> None:
    """By a process that names its id, or one of the runtime; no other port, no other container."""
    holder = PortHolder(ID)
    assert is_held("tcp", 8080, holder, proc)
    assert not is_held("tcp", 8080, PortHolder("f" * 64, (6,)), proc)
    assert not is_held("tcp", 80, holder, proc)
    assert not is_held("udp", 8080, holder, proc)
    assert is_held("tcp", 80, PortHolder(ID, (6,)), proc)


def test_a_port_that_others_use_as_well_is_not(proc: Path) -> None:
    """Publishing it would cut a program off."""
    with (proc / "net/tcp").open("a") as table:
        table.write(LINE.format(port=8080, state="0A", inode=74))
    process(proc, 7, "nginx\0", 74)

    assert not is_held("tcp", 8080, PortHolder(ID), proc)
