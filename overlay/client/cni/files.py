"""The files by which runtimes find the CNI plugin: a launcher, and a conflist for each network.

Owns: the conflists' content, and which of them are overlayd's. Does not: know the agent.
"""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from overlay.client import launcher

BIN_DIR: Final = Path("/opt/cni/bin")
CONF_DIR: Final = Path("/etc/cni/net.d")
PLUGIN_TYPE: Final = "overlayd"  # runtimes start the program of this name
_MODULE: Final = "overlay.client.cni.command"
_PREFIX: Final = "10-overlayd-"
_SUFFIX: Final = ".conflist"
# A runtime that knows no later version takes the first; others choose from the list. A conflist of
# 1.1.0 alone lets Podman 4.3 attach containers and never detach them.
_VERSION: Final = "1.0.0"
_VERSIONS: Final = ("1.0.0", "1.1.0")
_CAPABILITIES: Final = ("ips", "mac", "aliases", "portMappings", "bandwidth", "dns")


class CniPlaces(NamedTuple):
    """The directories where a runtime looks for plugins and configurations of networks."""

    bin_dir: Path = BIN_DIR
    conf_dir: Path = CONF_DIR

    @property
    def launcher(self) -> Path:
        """Return the path of the program."""
        return self.bin_dir / PLUGIN_TYPE

    def conflist(self, network: str) -> Path:
        """Return the path of a network's configuration."""
        return self.conf_dir / f"{_PREFIX}{network}{_SUFFIX}"


def install(network: str, places: CniPlaces, run_dir: Path) -> list[Path]:
    """Write the launcher and a network's conflist; return the files that changed.

    Raises ConflictError if another program has the launcher's name.
    """
    changed = [places.launcher] if launcher.install(places.launcher, _MODULE, run_dir) else []
    conflist = places.conflist(network)
    return [*changed, *([conflist] if launcher.write(conflist, _conflist(network), 0o644) else [])]


def uninstall(network: str | None, places: CniPlaces) -> list[Path]:
    """Remove a network's conflist (None: all), and the launcher with the last; return them."""
    found = installed(places)
    gone = [each for each in found if network is None or each == places.conflist(network)]
    for path in gone:
        launcher.remove(path)  # its folder stays: runtimes watch it
    if len(gone) == len(found) and launcher.uninstall(places.launcher):
        gone.append(places.launcher)
    return gone


def installed(places: CniPlaces) -> list[Path]:
    """Return the conflists that overlayd has written, also those that were extended since."""
    with suppress(OSError):
        return sorted(p for p in places.conf_dir.glob(f"{_PREFIX}*{_SUFFIX}") if _names_plugin(p))
    return []


def _conflist(network: str) -> str:
    """Return the configuration of a network."""
    plugin = {
        "type": PLUGIN_TYPE,
        "network": network,
        "capabilities": dict.fromkeys(_CAPABILITIES, True),
    }
    conflist = {
        "cniVersion": _VERSION,
        "cniVersions": _VERSIONS,
        "name": network,
        "plugins": [plugin],
    }
    return json.dumps(conflist, indent=2) + "\n"


def _names_plugin(path: Path) -> bool:
    try:
        plugins = json.loads(path.read_bytes())["plugins"]
        return any(each["type"] == PLUGIN_TYPE for each in plugins)
    except (OSError, ValueError, LookupError, TypeError):
        return False
