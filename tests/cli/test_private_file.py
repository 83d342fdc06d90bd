"""A file for the user alone, which is there as a whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import stat
from pathlib import Path

import pytest
from overlay.cli.private_file import write_new


def test_nobody_sees_a_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Until it is durable it has another name, and from the start nobody else may open it."""
    path, seen = tmp_path / "copy", []
    fsync, former = os.fsync, os.umask(0)

    def look(descriptor: int) -> None:
        if stat.S_ISREG(os.fstat(descriptor).st_mode):
            seen.append((path.exists(), stat.S_IMODE(os.fstat(descriptor).st_mode)))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", look)
    monkeypatch.setattr(os, "fchmod", lambda *_: None)
    try:
        write_new(path, b"secret")
    finally:
        os.umask(former)

    assert seen == [(False, 0o600)]
    assert path.read_bytes() == b"secret"
    assert path.stat().st_nlink == 1
    assert [each.name for each in tmp_path.iterdir()] == ["copy"]


def test_a_killed_command_leaves_no_part_under_its_name(tmp_path: Path) -> None:
    """Its repetition succeeds."""
    path = tmp_path / "copy"
    child = os.fork()
    if child == 0:
        os.fsync = lambda _descriptor: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
        write_new(path, b"secret")
        os._exit(0)
    _, status = os.waitpid(child, 0)

    assert os.WIFSIGNALED(status)
    assert not path.exists()
    write_new(path, b"secret")
    assert path.read_bytes() == b"secret"


def test_an_interrupted_command_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nor does a full disk."""
    for raised in (KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")):

        def fail(_descriptor: int, error: BaseException = raised) -> None:
            raise error

        monkeypatch.setattr(os, "fsync", fail)
        with pytest.raises(type(raised)):
            write_new(tmp_path / "copy", b"secret")
        assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("has_links", [True, False])
def test_nothing_is_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, has_links: bool
) -> None:
    """Neither a file nor a link that leads nowhere, also where a disk has no hard links."""
    if not has_links:

        def refuse(path: Path, _draft: Path) -> None:
            raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

        monkeypatch.setattr(Path, "hardlink_to", refuse)
    (tmp_path / "file").write_text("the only copy")
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    for name in ("file", "link"):
        with pytest.raises(FileExistsError):
            write_new(tmp_path / name, b"y")
    write_new(tmp_path / "new", b"x")

    assert (tmp_path / "file").read_text() == "the only copy"
    assert sorted(each.name for each in tmp_path.iterdir()) == ["file", "link", "new"]
    assert (tmp_path / "new").read_bytes() == b"x"
