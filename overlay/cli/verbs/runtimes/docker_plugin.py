"""Commands `docker-plugin install`, `docker-plugin status` and `docker-plugin uninstall`.

Owns: their options and output. Does not: know the plugin (`client.docker_plugin`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.cli.verbs.runtimes.root import require_root
from overlay.docker_socket import SWARM_DRIVER

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

INSTALL_DESCRIPTION = """\
Let the services of a Docker swarm use networks of the cluster: create and enable Docker's plugin
overlayd:swarm, on each host of the swarm.  It needs no registry.  Run again, it changes nothing.
Containers of 'docker run' need no plugin.  stdout: the plugin's name.

  sudo overlayd docker-plugin install
  sudo overlayd docker-plugin install --json
  docker network create -d overlayd:swarm --ipam-driver overlayd:swarm --attachable blue
  docker service create --network blue --endpoint-mode dnsrr --name web nginx
"""
STATUS_DESCRIPTION = """\
Show whether Docker has the plugin overlayd:swarm on this host.  Exit code 5: it has not, 4: it is
disabled or of another version, which 'docker-plugin install' repairs.

  sudo overlayd docker-plugin status
  sudo overlayd docker-plugin status --json
"""
UNINSTALL_DESCRIPTION = """\
Remove Docker's plugin overlayd:swarm from this host.  Docker refuses while its networks exist.

  docker network rm blue
  sudo overlayd docker-plugin uninstall
  sudo overlayd docker-plugin uninstall --json
"""


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    plugin = words.group("docker-plugin", "let the services of a Docker swarm use networks")
    plugin.verb("install", run_install, "create and enable Docker's plugin", INSTALL_DESCRIPTION)
    plugin.verb("status", run_status, "show whether Docker has the plugin", STATUS_DESCRIPTION)
    plugin.verb("uninstall", run_uninstall, "remove Docker's plugin", UNINSTALL_DESCRIPTION)


def run_install(args: Namespace) -> int:
    """Create and enable the plugin."""
    from overlay.client import docker_plugin  # noqa: PLC0415  imports tarfile

    require_root()
    changed = docker_plugin.install()
    if args.json:
        output.print_json(
            {
                "schema": "overlayd.docker-plugin-install/v1",
                "plugin": SWARM_DRIVER,
                "changed": changed,
            }
        )
        return 0
    output.print_result(SWARM_DRIVER)
    if not changed:
        output.print_note("it was there already")
    return 0


def run_status(args: Namespace) -> int:
    """Show the plugin."""
    from overlay.client import docker_plugin  # noqa: PLC0415  imports tarfile

    require_root()
    found = docker_plugin.find()
    state = "absent"
    if found is not None:
        state = "enabled" if found.enabled else "disabled"
        if not found.current:
            state = "outdated"
    code = {"enabled": 0, "absent": 5}.get(state, 4)
    if args.json:
        output.print_json(
            {
                "schema": "overlayd.docker-plugin-status/v1",
                "plugin": SWARM_DRIVER,
                "state": state,
            }
        )
        return code
    output.print_result(f"{SWARM_DRIVER}  {state}")
    if code:
        output.print_note("install it: sudo overlayd docker-plugin install")
    return code


def run_uninstall(args: Namespace) -> int:
    """Remove the plugin."""
    from overlay.client import docker_plugin  # noqa: PLC0415  imports tarfile

    require_root()
    removed = docker_plugin.uninstall()
    if args.json:
        output.print_json(
            {
                "schema": "overlayd.docker-plugin-uninstall/v1",
                "removed": [SWARM_DRIVER] if removed else [],
            }
        )
        return 0
    output.print_note(f"removed {SWARM_DRIVER}" if removed else "no such plugin, or no Docker")
    return 0
