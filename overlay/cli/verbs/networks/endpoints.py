"""Commands `network connect` and `disconnect`: attach and detach in Docker's words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.cli.options.common import add_attach_options
from overlay.cli.verbs.endpoint import TARGET_HELP, UNATTACHED, run_attach, run_detach

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup


def register(networks: VerbGroup) -> None:
    """Add the verbs of this module."""
    connect = networks.verb("connect", run_connect, "attach a container, as 'overlayd attach'")
    disconnect = networks.verb(
        "disconnect", run_disconnect, "detach a container, as 'overlayd detach'"
    )
    for verb, metavar in ((connect, UNATTACHED), (disconnect, "TARGET")):
        verb.add_argument("network", metavar="NETWORK")
        verb.add_argument("target", metavar=metavar, help=TARGET_HELP)
    add_attach_options(connect, may_start_later=True)
    connect.add_argument("--name", help="DNS name on the network (default: the container's)")


def run_connect(args: Namespace) -> int:
    """Attach a container to one network."""
    args.networks = [args.network]
    return run_attach(args)


def run_disconnect(args: Namespace) -> int:
    """Detach a container from one network."""
    args.networks = [args.network]
    return run_detach(args)
