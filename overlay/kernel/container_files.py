"""Where the files of bare containers are, and how they are recognized as overlayd's.

Owns: the marks. A container's namespace may be gone while its files or its name are left by a
crash; only the mark tells them from an operator's then. Does not: know the rest of their contents.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from pathlib import Path
from typing import Final

FILES_DIRECTORY: Final = Path("/etc/netns")  # ip-netns(8)
# The first line of the hosts file of a container, with a namespace of its own and in the host's.
OWN_MARK: Final = "# overlayd: a container with a network of its own"
HOST_MARK: Final = "# overlayd: a container in the host's own network"


def mark_of(name: str) -> str:
    """Return the mark of a container's files; empty if they are not overlayd's or do not exist."""
    try:
        with (FILES_DIRECTORY / name / "hosts").open(encoding="utf-8") as file:
            line = file.readline().rstrip("\n")
    except (OSError, UnicodeDecodeError):
        return ""
    return line if line in (OWN_MARK, HOST_MARK) else ""


def marked_names() -> list[str]:
    """Return the names of all containers that have overlayd's files, or a link to them."""
    with contextlib.suppress(FileNotFoundError):
        return sorted(entry.name for entry in FILES_DIRECTORY.iterdir() if mark_of(entry.name))
    return []


def is_there(name: str) -> bool:
    """Return whether a container has files, or a link, wherever that leads."""
    return os.path.lexists(FILES_DIRECTORY / name)


def remove(name: str) -> None:
    """Remove a container's files, or its link to those of another; and an empty /etc/netns."""
    directory = FILES_DIRECTORY / name
    if directory.is_symlink():
        directory.unlink(missing_ok=True)
    else:
        shutil.rmtree(directory, ignore_errors=True)
    with contextlib.suppress(OSError):  # other files are in it
        FILES_DIRECTORY.rmdir()
