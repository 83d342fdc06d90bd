"""The refusal of a state or run directory that cannot be overlayd's."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from overlay.errors import ConflictError, OverlayError
from overlay.own_files import directory, disk_errors, names

_DEFAULTS: Final = {"state": names.STATE_DIR, "run": names.RUN_DIR}


def refuse_foreign(state_dir: Path, run_dir: Path) -> None:
    """Refuse directories that hold files of others, and none of overlayd's.

    Raises ConflictError, and OverlayError for what is no directory or cannot be read.
    """
    _refuse("state", state_dir, run_dir)
    _refuse("run", run_dir, state_dir)


def foreign_text(folder: Path, found: directory.Contents) -> str:
    """Return why a directory is not overlayd's; empty if it is, or can be."""
    if not found.others or directory.is_ours(folder, found):
        return ""
    return f"it holds {directory.listing(found.others)}, and no state of overlayd"


def advice(name: str) -> str:
    """Return which directory to choose instead; `name`: state or run."""
    return (
        f"Choose one for overlayd alone: {name}_dir in the configuration file, or --{name}-dir; "
        f"the default is {_DEFAULTS[name]}"
    )


def link_advice(folder: Path) -> str:
    """Return what to do about a link that leads nowhere."""
    return f"Remove the link, or create what it leads to: ls -l {folder}"


def _refuse(name: str, folder: Path, other: Path) -> None:
    try:
        found = directory.contents(folder, other)
    except FileNotFoundError:
        if not folder.is_symlink():
            return
        found = None
    except OSError as error:
        raise OverlayError(
            f"cannot use the {name} directory {folder}",
            why=str(error.strerror),
            hint=disk_errors.hint(error, folder),
        ) from error
    if found is None:
        raise OverlayError(
            f"cannot use the {name} directory {folder}",
            why="it is a link that leads nowhere",
            hint=link_advice(folder),
        )
    why = foreign_text(folder, found)
    if why:
        raise ConflictError(
            f"the {name} directory {folder} is not overlayd's", why=why, hint=advice(name)
        )
