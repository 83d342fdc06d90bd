"""Commands `join` and `leave`.

Owns: their options and output. Does not: know how an agent is started (`cli.agent_start`)
or reached (`client.api`).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from overlay import limits
from overlay.cli import output
from overlay.client.api import ApiClient, JsonObject
from overlay.errors import AgentNotRunningError

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

PATIENCE_S = 3.0  # of somebody who does not know what a join waits for
JOIN_DESCRIPTION = """\
Start the agent on this host if none runs, and make it a member of a cluster.

Without PEER: create a cluster, or return to the one this host already belongs to.
With PEER: join the cluster of that host.  Any live member will do; several are asked at a time,
and the first to answer is used.  Joining again is harmless; a PEER of another cluster is then an
error.  On a member, PEER teaches this host where a member is now, and --underlay moves this host to
another address: after hosts were renumbered.

  sudo overlayd join
  sudo overlayd join 192.168.56.11 --token-file /etc/overlayd/token
  ssh vm1 sudo overlayd token show | sudo overlayd join 192.168.56.11 --token-file -

The token is read from --token-file or from the variable OVERLAYD_TOKEN, never from an argument.
"""


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    join = words.verb("join", run_join, "create or join a cluster", JOIN_DESCRIPTION)
    join.add_argument("peers", nargs="*", metavar="PEER", help="ADDRESS[:PORT] of a member")
    join.add_argument(
        "--token-file", metavar="FILE", help="file with the join token; - reads standard input"
    )
    join.add_argument(
        "--underlay",
        metavar="ADDRESS|INTERFACE",
        help="where other hosts reach this one (default: the route to the peer that answers first)",
    )
    join.add_argument("--name", help="this node's name (default: the host name)")
    join.add_argument(
        "--vxlan-port",
        type=int,
        metavar="PORT",
        help=f"UDP port of VXLAN, set by the first host (default: {limits.VXLAN_PORT_DEFAULT})",
    )
    join.add_argument(
        "--gossip-port",
        type=int,
        metavar="PORT",
        help=f"UDP port of gossip, set by the first host (default: {limits.GOSSIP_PORT_DEFAULT})",
    )
    leave = words.verb("leave", run_leave, "leave the cluster and detach everything on this host")
    leave.add_argument(
        "--force",
        action="store_true",
        help="leave even as the last holder of the authority",
    )


def run_join(args: Namespace) -> int:
    """Join a cluster, starting the agent first if none runs."""
    from overlay.cli import token_input  # noqa: PLC0415  only this verb needs it

    body: JsonObject = {
        "peers": args.peers,
        "token": token_input.read_token(args.token_file, os.environ),
        "underlay": args.underlay,
        "name": args.name,
        "vxlan_port": args.vxlan_port,
        "gossip_port": args.gossip_port,
    }
    joined = _request_join(ApiClient(args.paths), body)
    if args.json:
        output.print_json(joined)
    else:
        output.print_result(output.runnable(joined_text(joined)))
    if joined["already"]:
        _warn_unchanged(args, joined)
    return 0


def _request_join(client: ApiClient, body: JsonObject) -> JsonObject:
    """Return the agent's answer to a join, starting an agent first if none runs.

    Retries once: a killed agent still accepts connections until the kernel has torn it down.
    """
    from overlay.cli.agent_start import ensure_agent_running  # noqa: PLC0415  imports subprocess

    is_new = ensure_agent_running(client)
    try:
        if is_new:
            output.print_note("agent started")
        return _post_join(client, body)
    except AgentNotRunningError:
        if is_new:
            raise
    if ensure_agent_running(client):
        output.print_note("agent started")
    return _post_join(client, body)


def _post_join(client: ApiClient, body: JsonObject) -> JsonObject:
    """Return the agent's answer to a join; say what it waits for if it takes long."""
    import threading  # noqa: PLC0415  only this verb needs it

    peers = " or ".join(body["peers"])
    text = f"waiting for {peers} (at most {limits.JOIN_TIMEOUT_S:g} s for an answer)"
    told = threading.Timer(PATIENCE_S, output.print_note, [text])
    told.daemon = True
    if peers:
        told.start()
    try:
        return client.post("/v1/join", body)
    finally:
        told.cancel()


def _warn_unchanged(args: Namespace, joined: JsonObject) -> None:
    """Warn about options that have no effect because this host is a member already."""
    node = joined["node"]
    requested = (
        ("--name", args.name, (node["name"],)),
        ("--vxlan-port", args.vxlan_port, (joined["vxlan_port"],)),
        ("--gossip-port", args.gossip_port, (joined["gossip_port"],)),
    )
    ignored = [
        f"{option} {value}" for option, value, current in requested if value not in (None, *current)
    ]
    if ignored:
        output.warn(
            f"this host is already a member, so {', '.join(ignored)} has no effect",
            "To change it: sudo overlayd leave, then join again",
        )


def joined_text(joined: JsonObject) -> str:
    """Return the result of `join`, for people."""
    node = joined["node"]
    line = (
        f"node {node['name']} ({node['id']}) up: underlay {node['address']} on {node['interface']},"
        f" mtu {node['underlay_mtu']} -> overlay mtu {joined['overlay_mtu']},"
        f" vxlan {joined['vxlan_port']}/udp, gossip {joined['gossip_port']}/udp"
    )
    if joined["created"]:
        return (
            f"{line}\ncreated cluster {joined['cluster']}; join other hosts with:\n"
            f"  {joined['next']}\n"
            "where FILE contains the output of: sudo overlayd token show"
        )
    how = "already a member of" if joined["already"] else "joined"
    via = f" via {joined['via']}" if joined["via"] else ""
    return (
        f"{line}\n{how} cluster {joined['cluster']}{via}:"
        f" {output.count_text(joined['members'], 'node')},"
        f" {output.count_text(joined['networks'], 'network')},"
        f" {output.count_text(joined['endpoints'], 'endpoint')} ({joined['elapsed_ms']:.0f} ms)"
    )


def run_leave(args: Namespace) -> int:
    """Leave the cluster."""
    left = ApiClient(args.paths).post("/v1/leave", {"force": args.force})
    if args.json:
        output.print_json(left)
        return 0
    done = "left the cluster" if left.get("left", True) else "this host was in no cluster"
    output.print_note(f"{done}; to remove all traces of overlayd: sudo overlayd reset")
    return 0
