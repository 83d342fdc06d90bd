"""Containers of this host that could be attached, as completion offers them.

Owns: asking the container engines by their own programs, as the user who types may ask them.
"""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

ENGINES: Final = ("docker", "podman")
NAMESPACES: Final = Path("/run/netns")
SANDBOX_PREFIX: Final = "ov-"
_TIMEOUT_S: Final = 3.0  # a line that is being typed waits no longer


def running_targets() -> list[str]:
    """Return the targets of this host's containers and namespaces, attached or not."""
    found = [f"{engine}:{name}" for engine in ENGINES for name in _names(engine)]
    try:
        namespaces = sorted(path.name for path in NAMESPACES.iterdir())
    except OSError:
        namespaces = []
    return found + [f"netns:{name}" for name in namespaces if not name.startswith(SANDBOX_PREFIX)]


def _names(engine: str) -> list[str]:
    """Return the names of an engine's running containers; none if it does not answer."""
    command = [engine, "ps", "--format", "{{.Names}}"]
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
            timeout=_TIMEOUT_S,
        )  # fmt: skip
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.split() if done.returncode == 0 else []
