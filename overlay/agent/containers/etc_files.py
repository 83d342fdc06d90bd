"""The files of a bare container: /etc/netns/NAME/resolv.conf and /etc/netns/NAME/hosts.

`ip netns exec` shows them to its command instead of those in /etc (ip-netns(8)).
Owns: their contents, and whether a container may be given such files.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from overlay import failpoint, public_files
from overlay.errors import OverlayError
from overlay.kernel import container_files
from overlay.kernel.container_files import HOST_MARK, OWN_MARK

_HOSTS_HEAD = (OWN_MARK, "127.0.0.1 localhost", "::1 localhost")


def exist(name: str) -> bool:
    """Return whether a container has its files."""
    return (container_files.FILES_DIRECTORY / name / "hosts").exists()


def write(name: str, resolver: Sequence[str] | None = None, hosts: Sequence[str] = ()) -> None:
    """Write the files of a container that has its own namespace; None: the host's resolv.conf.

    They are written in place: running commands have them bind-mounted over those in /etc.
    """
    failpoint.failpoint("container.files" if resolver is None else "container.names")
    directory = container_files.FILES_DIRECTORY / name
    with _reported(directory):
        public_files.make_directory(directory)
        _put(directory / "hosts", _joined([*_HOSTS_HEAD, *hosts]))  # first: it has the mark
        text = _text_of(Path("/etc/resolv.conf")) if resolver is None else _joined(resolver)
        _put(directory / "resolv.conf", text)


def link(name: str, owner: str) -> None:
    """Show the files of the container that owns the namespace to one that shares it."""
    failpoint.failpoint("container.files")
    directory = container_files.FILES_DIRECTORY / name
    with _reported(directory):
        public_files.make_directory(container_files.FILES_DIRECTORY)
        if not directory.is_symlink():
            directory.symlink_to(owner)


def write_of_host(name: str) -> None:
    """Show the host's own files to a container in the host's namespace.

    Only the mark in its hosts file shows `reset` that the name is overlayd's: the loopback
    interface of the host cannot be marked.
    """
    failpoint.failpoint("container.files")
    directory = container_files.FILES_DIRECTORY / name
    with _reported(directory):
        public_files.make_directory(directory)
        text = f"{HOST_MARK}\n{_text_of(Path('/etc/hosts'))}"
        _put(directory / "hosts", text)


def remove(name: str) -> None:
    """Remove a container's files, and /etc/netns if it is empty then."""
    failpoint.failpoint("container.remove-files")
    container_files.remove(name)


def are_foreign(name: str) -> bool:
    """Return whether there are files for this name that overlayd did not write."""
    directory = container_files.FILES_DIRECTORY / name
    if directory.is_symlink():  # overlayd's point to another container's files beside them
        return "/" in os.readlink(directory)  # noqa: PTH115 - the link as it is written
    if not directory.is_dir():
        return directory.exists()
    found = {entry.name for entry in directory.iterdir()}
    return bool(found) and not (container_files.mark_of(name) and found <= {"hosts", "resolv.conf"})


def _put(path: Path, text: str) -> None:
    """Write a file unless it has this text already; unprivileged users read it, too."""
    public_files.write_file(path, text.encode(errors="surrogateescape"))


def _text_of(path: Path) -> str:
    """Return a file of the host, whose bytes need not be UTF-8; empty if there is none."""
    return path.read_bytes().decode(errors="surrogateescape") if path.exists() else ""


def _joined(lines: Sequence[str]) -> str:
    return "\n".join(lines) + "\n"


@contextlib.contextmanager
def _reported(directory: Path) -> Iterator[None]:
    """Raise an OSError of the block as an OverlayError that names the directory."""
    try:
        yield
    except OSError as error:
        raise OverlayError(
            f"cannot write {directory}", why=str(error.strerror), hint="Is /etc writable?"
        ) from error
