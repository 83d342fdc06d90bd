"""The files by which runtimes find the CNI plugin: a launcher, and a conflist for each network.

Owns: their content, and the marks by which only these files are replaced and removed.
Does not: know the agent.
"""

from __future__ import annotations

import json
import os
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from overlay.errors import ConflictError, OverlayError

BIN_DIR: Final = Path("/opt/cni/bin")
CONF_DIR: Final = Path("/etc/cni/net.d")
PLUGIN_TYPE: Final = "overlayd"  # runtimes start the program of this name
_MARK: Final = "# Made by `overlayd cni install`, removed by `overlayd cni uninstall`."
_PREFIX: Final = "10-overlayd-"
_SUFFIX: Final = ".conflist"
# A runtime that knows no later version takes the first; others choose from the list. A conflist of
# 1.1.0 alone lets Podman 4.3 attach containers and never detach them.
_VERSION: Final = "1.0.0"
_VERSIONS: Final = ("1.0.0", "1.1.0")
_CAPABILITIES: Final = ("ips", "mac", "aliases", "portMappings", "bandwidth", "dns")


class CniPlaces(NamedTuple):
    """Where a runtime looks for plugins and for configurations of networks."""

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
    if places.launcher.exists() and not _is_ours(places.launcher):
        raise ConflictError(
            f"{places.launcher} exists, and overlayd did not make it",
            why="runtimes would start it as this plugin",
            hint=f"Move it away: mv {places.launcher} {places.launcher}.old",
        )
    written = (
        (places.launcher, _launcher_text(run_dir), 0o755),
        (places.conflist(network), conflist_text(network), 0o644),
    )
    return [path for path, text, mode in written if _write(path, text, mode)]


def uninstall(network: str | None, places: CniPlaces) -> list[Path]:
    """Remove a network's conflist (None: all), and the launcher with the last; return them."""
    found = installed(places)
    gone = [each for each in found if network is None or each == places.conflist(network)]
    if len(gone) == len(found) and places.launcher.exists() and _is_ours(places.launcher):
        gone.append(places.launcher)
    for path in gone:
        try:
            path.unlink()
        except OSError as error:
            raise OverlayError(f"cannot remove {path}", why=str(error.strerror)) from error
    with suppress(OSError):  # other plugins are there
        places.bin_dir.rmdir()  # runtimes watch the other folder, which stays
    return gone


def installed(places: CniPlaces) -> list[Path]:
    """Return the conflists that overlayd has written, also those that were extended since."""
    with suppress(OSError):
        return sorted(p for p in places.conf_dir.glob(f"{_PREFIX}*{_SUFFIX}") if _names_plugin(p))
    return []


def conflist_text(network: str) -> str:
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


def _launcher_text(run_dir: Path) -> str:
    """Return the program: Python without site-packages, so that it starts quickly."""
    root = Path(__file__).resolve().parents[3]
    return (
        f"#!{Path(sys.executable).resolve()} -IS\n"
        f"{_MARK}\n"
        "import sys\n"
        f"sys.path.insert(0, {str(root)!r})\n"
        "from overlay.client.cni.command import main\n"
        f"sys.exit(main({str(run_dir)!r}))\n"
    )


def _is_ours(path: Path) -> bool:
    with suppress(OSError):
        return _MARK in path.read_text(encoding="utf-8", errors="replace")
    return False


def _names_plugin(path: Path) -> bool:
    try:
        plugins = json.loads(path.read_bytes())["plugins"]
        return any(each["type"] == PLUGIN_TYPE for each in plugins)
    except (OSError, ValueError, LookupError, TypeError):
        return False


def _write(path: Path, text: str, mode: int) -> bool:
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
