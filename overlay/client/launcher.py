"""Programs that container runtimes start: their files, and the mark by which they are overlayd's.

Owns: what such a file contains, and that no other program is replaced or removed. Does not: know
what the programs do, or where runtimes look for them.
"""

from __future__ import annotations

import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

from overlay.errors import ConflictError, OverlayError

_MARK: Final = "# Made by overlayd, which replaces and removes it."


def install(path: Path, module: str, run_dir: Path) -> bool:
    """Write the program that calls a module's `main` with the run directory.

    Returns False if it was there already. Raises ConflictError if another program is there. It is
    Python without site-packages, so that it starts quickly.
    """
    if path.exists() and not _is_ours(path):
        raise ConflictError(
            f"{path} exists, and overlayd did not make it",
            why="runtimes would start it as this plugin",
            hint=f"Move it away: mv {path} {path}.old",
        )
    root = Path(__file__).resolve().parents[2]
    text = (
        f"#!{Path(sys.executable).resolve()} -IS\n"
        f"{_MARK}\n"
        "import os, sys\n"
        f"sys.path.insert(0, {str(root)!r})\n"
        f"from {module} import main\n"
        f"os._exit(main({str(run_dir)!r}))\n"  # which has flushed; the rest is tidying up
    )
    return write(path, text, 0o755)


def uninstall(path: Path) -> bool:
    """Remove a program, and its folder if nothing else is there; return whether it was there."""
    if not path.exists() or not _is_ours(path):
        return False
    remove(path)
    with suppress(OSError):  # other plugins are there
        path.parent.rmdir()
    return True


def write(path: Path, text: str, mode: int) -> bool:
    """Replace a file in one step; return False if it has this content and mode already."""
    temporary = path.with_name(f".{path.name}.new")
    try:
        if path.exists() and path.read_text(encoding="utf-8", errors="replace") == text:
            changed = path.stat().st_mode & 0o7777 != mode
            path.chmod(mode)
            return changed
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        temporary.write_text(text, encoding="utf-8")
        temporary.chmod(mode)
        os.replace(temporary, path)  # noqa: PTH105  as one step, whatever is there
    except OSError as error:
        raise OverlayError(
            f"cannot write {path}", why=str(error.strerror), hint="Run it as root"
        ) from error
    return True


def remove(path: Path) -> None:
    """Remove a file; raises OverlayError."""
    try:
        path.unlink()
    except OSError as error:
        raise OverlayError(
            f"cannot remove {path}", why=str(error.strerror), hint=f"Remove it: sudo rm {path}"
        ) from error


def _is_ours(path: Path) -> bool:
    with suppress(OSError):
        return _MARK in path.read_text(encoding="utf-8", errors="replace")
    return False
