"""Find a container of nerdctl, by the files in which it keeps names and ids.

nerdctl gives containers of containerd names: below its data root, `names/NAMESPACE/NAME` has the id
of the container, and `containers/NAMESPACE/ID` is its folder. Everything here blocks.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from overlay.agent.runtimes.containerd import DEFAULT_NAMESPACE, ContainerdEngine
from overlay.agent.runtimes.engines import ID_PREFIX_LENGTH_MIN, EngineContainer
from overlay.errors import ConflictError

DATA_ROOT: Final = Path("/var/lib/nerdctl")
_WORD: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")
_ID_PREFIX: Final = re.compile(rf"[0-9a-f]{{{ID_PREFIX_LENGTH_MIN},64}}")


class NerdctlEngine:
    """nerdctl: its names on disk, and the state of containerd."""

    kind = "nerdctl"
    title = "nerdctl"

    def __init__(
        self, data_root: Path = DATA_ROOT, containerd: ContainerdEngine | None = None
    ) -> None:
        self._data_root = data_root
        self._containerd = containerd or ContainerdEngine()

    def absence(self) -> str | None:
        """Return that nerdctl has no containers if it has no names."""
        if next(self._data_root.glob("*/names/*/*"), None) is not None:
            return None
        return f"nerdctl has no containers: nothing in {self._data_root}"

    def find(self, name: str) -> EngineContainer | None:
        """Return a container by its name, or by its id or a prefix of that.

        A namespace may precede it (`NAMESPACE/NAME`). Raises ConflictError if it is ambiguous.
        """
        namespace, _, word = name.rpartition("/")
        if not _WORD.fullmatch(word) or (namespace and not _WORD.fullmatch(namespace)):
            return None
        known = [row for row in self._containers() if namespace in ("", row[0])]
        found = [row for row in known if row[1] == word]
        if not found and _ID_PREFIX.fullmatch(word):
            found = [row for row in known if row[2].startswith(word)]
        if len(found) > 1:
            candidates = sorted(f"nerdctl:{space}/{title}" for space, title, _ in found)
            raise ConflictError(
                f"nerdctl container {name!r} is ambiguous",
                why=f"candidates: {', '.join(candidates)}",
                hint=f"Use one of them, for example {candidates[0]}",
            )
        if not found:
            return None
        ((space, title, container_id),) = found
        task = self._containerd.task(space, container_id)
        pid = None if task is None else self._containerd.first_process(task)
        return EngineContainer(
            self.kind,
            title if space == DEFAULT_NAMESPACE else f"{space}/{title}",
            f"{space}/{container_id}",
            pid,
            "not running" if pid is None else "running",
        )

    def _containers(self) -> Iterator[tuple[str, str, str]]:
        """Yield namespace, name and id of each container."""
        for path in sorted(self._data_root.glob("*/names/*/*")):
            try:
                container_id = path.read_text(encoding="ascii").strip()
            except (OSError, ValueError):
                continue  # just being written or removed
            if _ID_PREFIX.fullmatch(container_id):
                yield path.parent.name, path.name, container_id
