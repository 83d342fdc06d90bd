"""Commands `netavark install` and `netavark uninstall`.

Owns: their options and output. Does not: know the plugin (`client.netavark`).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.cli.verbs.runtimes.root import require_root
from overlay.client import launcher
from overlay.client.paths import NETAVARK_PLUGIN

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

INSTALL_DESCRIPTION = """\
Let Podman 4.6 and later, with netavark, attach containers to networks of the cluster: write the
plugin's launcher.  Run again, it changes nothing.  stdout: the file.

  sudo overlayd netavark install
  sudo overlayd netavark install --dir /usr/lib/podman
  sudo podman network create -d overlayd blue
  sudo podman run --network blue nginx
"""
UNINSTALL_DESCRIPTION = """\
Remove what 'netavark install' wrote.  Remove Podman's networks of driver overlayd first: without
the plugin Podman cannot detach their containers.

  sudo overlayd netavark uninstall
  sudo overlayd netavark uninstall --dir /usr/lib/podman
"""
_MODULE = "overlay.client.netavark"


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    netavark = words.group("netavark", "let Podman with netavark attach its containers")
    install = netavark.verb(
        "install", run_install, "let Podman create networks of driver overlayd", INSTALL_DESCRIPTION
    )
    uninstall = netavark.verb(
        "uninstall", run_uninstall, "remove what 'netavark install' wrote", UNINSTALL_DESCRIPTION
    )
    for verb in (install, uninstall):
        verb.add_argument(
            "--dir",
            metavar="DIR",
            default=str(NETAVARK_PLUGIN.parent),
            help=f"one of Podman's netavark_plugin_dirs (default: {NETAVARK_PLUGIN.parent})",
        )


def run_install(args: Namespace) -> int:
    """Write the launcher."""
    require_root()
    path = _path(args)
    changed = launcher.install(path, _MODULE, args.paths.run_dir)
    if args.json:
        output.print_json(
            {
                "schema": "overlayd.netavark-install/v1",
                "files": [str(path)],
                "changed": [str(path)] if changed else [],
            }
        )
        return 0
    output.print_result(str(path))
    if not changed:
        output.print_note("it was there already")
    return 0


def run_uninstall(args: Namespace) -> int:
    """Remove the launcher."""
    require_root()
    path = _path(args)
    removed = [str(path)] if launcher.uninstall(path) else []
    if args.json:
        output.print_json({"schema": "overlayd.netavark-uninstall/v1", "removed": removed})
        return 0
    output.print_note(f"removed {path}" if removed else "'netavark install' has left nothing here")
    return 0


def _path(args: Namespace) -> Path:
    return Path(args.dir).absolute() / NETAVARK_PLUGIN.name
