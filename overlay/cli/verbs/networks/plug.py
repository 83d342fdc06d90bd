"""Commands `network plug` and `unplug`: an interface of this host as a port of a network.

Owns: their options and output. Does not: know which interfaces can be plugged; the agent says.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.client.api import ApiClient, JsonObject, segment

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

PLUG_DESCRIPTION = """\
Plug an interface of this host, or a VLAN of one (eth2.100, made here if there is none), into a
network: machines behind it are on the segment, with the containers of all hosts.

All frames of the interface go to the network, so one with addresses is refused without --force.
Of all hosts that plug one wire, one is active; the others take over when it dies.  All plugs of a
network count as one wire, unless --segment gives them different names; a host can plug several.
Addresses that machines outside use are never given to containers; what they send with a container's
address or MAC is dropped.

  sudo overlayd network plug blue eth2
  sudo overlayd network plug blue eth2.100 --segment lab
"""
UNPLUG_DESCRIPTION = """\
Give an interface that is plugged into a network back to this host.  Another host that plugs the
same wire takes over.  This also ends a plug that a file has declared.

  sudo overlayd network unplug blue
  sudo overlayd network unplug blue eth2.100
"""


def register(networks: VerbGroup) -> None:
    """Add the verbs of this module."""
    plug = networks.verb(
        "plug", run_plug, "make a physical interface a port of a network", PLUG_DESCRIPTION
    )
    plug.add_argument("name", metavar="NETWORK")
    plug.add_argument("interface", metavar="INTERFACE", help="of this host, such as eth2, eth2.100")
    plug.add_argument(
        "--segment",
        metavar="NAME",
        help="name of the wire, where a network has plugs on several (default: default)",
    )
    plug.add_argument(
        "--force", action="store_true", help="although the interface has addresses of this host"
    )
    unplug = networks.verb(
        "unplug", run_unplug, "give a plugged interface back to the host", UNPLUG_DESCRIPTION
    )
    unplug.add_argument("name", metavar="NETWORK")
    unplug.add_argument(
        "interface", metavar="INTERFACE", nargs="?", help="which one, if several are plugged"
    )


def run_plug(args: Namespace) -> int:
    """Plug an interface, and say whether it is active."""
    body: JsonObject = {"interface": args.interface, "force": args.force}
    if args.segment is not None:
        body["segment"] = args.segment
    shown = ApiClient(args.paths).post(f"/v1/networks/{segment(args.name)}/plug", body)
    if args.json:
        output.print_json(shown)
        return 0
    changed = "is" if shown["changed"] else "is already"
    output.print_result(
        f"{shown['interface']} {changed} plugged into {shown['network']}: {state_text(shown)}"
    )
    if shown["clear"]:
        output.print_note("the network is encrypted between hosts; what leaves by the plug is not")
    return 0


def run_unplug(args: Namespace) -> int:
    """Unplug the interface of a network."""
    path = f"/v1/networks/{segment(args.name)}/plug"
    shown = ApiClient(args.paths).delete(path, interface=args.interface)
    if args.json:
        output.print_json(shown)
    elif shown["interface"] is None:
        output.print_result(f"no interface of this host is plugged into {shown['network']}")
    else:
        output.print_result(f"{shown['interface']} is unplugged from {shown['network']}")
    return 0


def state_text(plug: JsonObject) -> str:
    """Return whether a plug is active, and why not."""
    return f"{plug['state']} ({plug['why']})" if plug["why"] else str(plug["state"])


def plugs_text(network: JsonObject) -> str:
    """Return the plugs of a network on all hosts, a line each."""
    return "\n".join(_line(plug) for plug in network.get("plugs") or [])


def _line(plug: JsonObject) -> str:
    name = f"{plug['interface']} of {plug['node']}"
    wire = "" if plug["segment"] == "default" else f" on {plug['segment']}"
    behind = f", {output.count_text(plug['machines'], 'machine')} outside"
    return f"{name}{wire}: {state_text(plug)}{behind if plug['state'] == 'active' else ''}"
