"""The socket at which Docker looks for overlayd's plugin, and what all that answer there share.

The socket's name outlives the agent, so that Docker waits for the next one; `reset` and the removal
of the package remove it.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from json import dumps
from pathlib import Path
from typing import Any, Final

from overlay.unix_http import quote

PLUGIN_DIR: Final = Path("/run/docker/plugins")  # one of those that Docker searches
SOCKET_NAME: Final = "overlayd.sock"
SWARM_PREFIX: Final = "/swarm/"  # of the calls that the managed plugin passes on
SWARM_DRIVER: Final = "overlayd:swarm"  # the managed plugin, and so the driver of its networks
DRIVER: Final = "overlayd"
ADDRESS_SPACE: Final = "overlayd"
MADE_BY_OVERLAYD: Final = ("overlayd.made-by", "overlayd")
"""The label of the Docker networks that an agent made for those of the cluster."""
CONSTANT_ANSWERS: Final[dict[str, dict[str, Any]]] = {
    "Plugin.Activate": {"Implements": ["NetworkDriver", "IpamDriver"]},
    # Docker's networks are per host; their containers are reachable from all.
    "NetworkDriver.GetCapabilities": {"Scope": "local", "ConnectivityScope": "global"},
    "IpamDriver.GetCapabilities": {"RequiresMACAddress": False, "RequiresRequestReplay": False},
    "IpamDriver.GetDefaultAddressSpaces": {
        "LocalDefaultAddressSpace": ADDRESS_SPACE,
        "GlobalDefaultAddressSpace": ADDRESS_SPACE,
    },
    "NetworkDriver.DiscoverNew": {},
    "NetworkDriver.DiscoverDelete": {},
}


def is_made_by_overlayd(listed: Mapping[str, Any]) -> bool:
    """Return whether an agent made a network that Docker lists."""
    key, value = MADE_BY_OVERLAYD
    return listed.get("Driver") == DRIVER and (listed.get("Labels") or {}).get(key) == value


def users_query(listed: Mapping[str, Any]) -> str:
    """Return the path of Docker's API for the containers of a network, running or not.

    Docker knows the networks of one that was never started by their names alone.
    """
    filters = quote(dumps({"network": [listed["Id"], listed["Name"]]}))
    return f"/containers/json?all=true&filters={filters}"


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
