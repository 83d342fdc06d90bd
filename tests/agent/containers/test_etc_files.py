"""The files of bare containers are written in place, and other programs' files are kept."""

from __future__ import annotations

from pathlib import Path

import pytest
from overlay.agent.containers import etc_files
from overlay.errors import OverlayError
from overlay.kernel import container_files


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the directory that stands in for /etc/netns."""
    path = tmp_path / "netns"
    monkeypatch.setattr(container_files, "FILES_DIRECTORY", path)
    return path


def test_a_resolver_and_hosts_are_written(directory: Path) -> None:
    """The hosts file has a mark and the loopback names first; resolv.conf has the given lines."""
    etc_files.write("web", ["nameserver 10.32.0.1", "search overlay"], ["10.32.0.2 web"])

    assert (directory / "web" / "resolv.conf").read_text() == (
        "nameserver 10.32.0.1\nsearch overlay\n"
    )
    assert (directory / "web" / "hosts").read_text() == (
        "# overlayd: a container with a network of its own\n"
        "127.0.0.1 localhost\n::1 localhost\n10.32.0.2 web\n"
    )
    assert etc_files.exist("web")


def test_the_default_resolver_is_the_hosts(directory: Path) -> None:
    """A container without a network that serves names has the host's resolv.conf."""
    host = Path("/etc/resolv.conf")

    etc_files.write("web")

    expected = host.read_text() if host.exists() else ""
    assert (directory / "web" / "resolv.conf").read_text() == expected


def test_bytes_of_the_hosts_files_are_copied(
    directory: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They need not be UTF-8: a comment in another encoding is no error."""
    host = tmp_path / "hosts"
    host.write_bytes(b"# caf\xe9\n192.0.2.1 router\n")
    monkeypatch.setattr(etc_files, "Path", lambda _path: host)
    etc_files.write_of_host("web")

    assert (directory / "web" / "hosts").read_bytes().endswith(host.read_bytes())


def test_files_are_rewritten_in_place(directory: Path) -> None:
    """A running command has the file mounted, so its inode must stay the same."""
    etc_files.write("web")
    before = (directory / "web" / "resolv.conf").stat().st_ino

    etc_files.write("web", ["nameserver 10.32.0.1"])

    assert (directory / "web" / "resolv.conf").stat().st_ino == before


def test_a_sharing_container_has_the_owners_files(directory: Path) -> None:
    """Its directory is a link, which survives a second call."""
    etc_files.write("web", ["nameserver 10.32.0.1"])
    for _ in range(2):
        etc_files.link("debug", "web")

    assert (directory / "debug" / "resolv.conf").read_text() == "nameserver 10.32.0.1\n"


def test_own_files_are_not_foreign(directory: Path) -> None:
    """Files of every mode are recognized, and so is a name without files."""
    etc_files.write("web")
    etc_files.link("debug", "web")
    etc_files.write_of_host("onhost")

    assert [etc_files.are_foreign(name) for name in ("web", "debug", "onhost", "none")] == [
        False,
        False,
        False,
        False,
    ]
    assert directory.exists()


def test_other_programs_files_are_foreign(directory: Path) -> None:
    """A directory, a link or a file that overlayd did not write is not its own."""
    (directory / "bare").mkdir(parents=True)
    (directory / "bare" / "resolv.conf").write_text("nameserver 192.0.2.1\n")
    (directory / "linked").symlink_to("/etc")
    (directory / "file").write_text("")
    etc_files.write("extended")
    (directory / "extended" / "nsswitch.conf").write_text("")

    for name in ("bare", "linked", "file", "extended"):
        assert etc_files.are_foreign(name), name


def test_removal_leaves_no_empty_directory(directory: Path) -> None:
    """/etc/netns is removed with the last container's files, and kept while others are there."""
    etc_files.write("web")
    etc_files.link("debug", "web")
    etc_files.remove("debug")
    assert (directory / "web" / "hosts").exists()

    etc_files.remove("web")

    assert not directory.exists()


def test_an_unwritable_directory_is_an_error(directory: Path) -> None:
    """The error names the directory that could not be written."""
    directory.write_text("a file")

    with pytest.raises(OverlayError, match=f"cannot write {directory / 'web'}"):
        etc_files.write("web")
