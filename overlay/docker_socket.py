"""The socket at which Docker looks for overlayd's plugin.

The name outlives the agent, so that Docker waits for the next one; `reset` and the removal of the
package remove it.
"""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import Final

PLUGIN_DIR: Final = Path("/run/docker/plugins")  # one of those that Docker searches
SOCKET_NAME: Final = "overlayd.sock"
SWARM_PREFIX: Final = "/swarm/"  # of the calls that the managed plugin passes on
SWARM_DRIVER: Final = "overlayd:swarm"  # the managed plugin, and so the driver of its networks


def remove_plugin_socket(folder: Path = PLUGIN_DIR) -> list[str]:
    """Remove the socket, and the folders that an agent made for it; return what was removed."""
    try:
        (folder / SOCKET_NAME).unlink()
    except FileNotFoundError:
        return []
    with suppress(OSError):  # in use by Docker or another plugin
        folder.rmdir()
        folder.parent.rmdir()
    return [str(folder / SOCKET_NAME)]
