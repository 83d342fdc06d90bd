"""Files for all users, under a umask that forbids them."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from overlay import public_files

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def strict() -> Iterator[None]:
    """Set the umask of the systemd unit."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def mode(path: Path) -> int:
    """Return a file's permissions."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.usefixtures("strict")
def test_all_users_can_read_what_is_made(tmp_path: Path) -> None:
    """A file, its directory and the one above; and a file that an older agent wrote for root."""
    directory = tmp_path / "netns" / "c1"
    public_files.make_directory(directory)
    old, new = directory / "hosts", directory / "resolv.conf"
    old.write_bytes(b"same")
    for path in (old, new):
        public_files.write_file(path, b"same")

    assert mode(old) == mode(new) == 0o644
    assert mode(directory) == mode(directory.parent) == 0o755


@pytest.mark.usefixtures("strict")
def test_a_directory_that_exists_keeps_its_mode(tmp_path: Path) -> None:
    """It is not overlayd's."""
    tmp_path.chmod(0o700)
    public_files.make_directory(tmp_path)

    assert mode(tmp_path) == 0o700
