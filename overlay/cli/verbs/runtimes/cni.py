"""Commands `cni install` and `cni uninstall`.

Owns: their options and output. Does not: know the files (`client.cni.files`) or the plugin.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.cli.verbs.runtimes.root import require_root
from overlay.client.api import ApiClient, segment
from overlay.client.cni import files
from overlay.errors import AgentNotRunningError, ConflictError

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup
    from overlay.strict_arguments import StrictParser

INSTALL_DESCRIPTION = """\
Let container runtimes that use CNI (Podman, containerd, Nomad, Kubernetes) attach their containers
to a network: write the plugin's launcher and a configuration of that network.  Run again, it
changes nothing.  stdout: the files.

  sudo overlayd cni install blue
  sudo overlayd cni install blue --conf-dir /etc/containerd/net.d
  sudo podman run --network blue nginx
"""
UNINSTALL_DESCRIPTION = """\
Remove what 'cni install' wrote: the configuration of one network or of all, and with the last one
the launcher.  Detach the containers first: without these files their runtime cannot.

  sudo overlayd cni uninstall blue
  sudo overlayd cni uninstall
"""


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    cni = words.group("cni", "let runtimes that use CNI attach their containers")
    install = cni.verb(
        "install", run_install, "let runtimes attach containers to a network", INSTALL_DESCRIPTION
    )
    install.add_argument("network", metavar="NETWORK")
    uninstall = cni.verb(
        "uninstall", run_uninstall, "remove what 'cni install' wrote", UNINSTALL_DESCRIPTION
    )
    uninstall.add_argument("network", nargs="?", metavar="NETWORK", help="this network only")
    for verb in (install, uninstall):
        _add_places(verb)


def _add_places(verb: StrictParser) -> None:
    for option, folder, text in (
        ("--bin-dir", files.BIN_DIR, "where the runtime looks for plugins"),
        ("--conf-dir", files.CONF_DIR, "where it looks for networks"),
    ):
        verb.add_argument(
            option, metavar="DIR", default=str(folder), help=f"{text} (default: {folder})"
        )


def run_install(args: Namespace) -> int:
    """Write launcher and conflist."""
    require_root()
    client, network = ApiClient(args.paths), args.network
    try:
        network = client.get(f"/v1/networks/{segment(network)}")["name"]
    except (AgentNotRunningError, ConflictError) as error:
        output.warn(f"network {network} was not looked up: {error.what}", "sudo overlayd join")
    places = _places(args)
    changed = files.install(network, places, args.paths.run_dir)
    if args.json:
        output.print_json(
            {
                "schema": "overlayd.cni-install/v1",
                "network": network,
                "files": [str(places.launcher), str(places.conflist(network))],
                "changed": [str(path) for path in changed],
            }
        )
        return 0
    output.print_result(f"{places.launcher}\n{places.conflist(network)}")
    if not changed:
        output.print_note("both were there already")
    return 0


def run_uninstall(args: Namespace) -> int:
    """Remove conflists and launcher."""
    require_root()
    removed = [str(path) for path in files.uninstall(args.network, _places(args))]
    if args.json:
        output.print_json({"schema": "overlayd.cni-uninstall/v1", "removed": removed})
        return 0
    for path in removed:
        output.print_note(f"removed {path}")
    if not removed:
        output.print_note("'cni install' has left nothing here")
    return 0


def _places(args: Namespace) -> files.CniPlaces:
    return files.CniPlaces(Path(args.bin_dir).absolute(), Path(args.conf_dir).absolute())
