"""Commands `evpn enable`, `disable`, `status`, `ls` and `run`.

Owns: their options and output, and the start of FRR's supervisor, which the agent lacks the
capabilities for. The password of the sessions is never shown.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from overlay import limits
from overlay.cli import output
from overlay.cli.options.lists import add_list_options, print_rows
from overlay.cli.secret_file import STDIN, read_secret
from overlay.client.api import ApiClient, JsonObject
from overlay.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace
    from pathlib import Path

    from overlay.cli.parser import VerbGroup

ENABLE_DESCRIPTION = """\
Speak BGP EVPN from this host: its containers on exported networks are announced to a fabric, and
those of the fabric's other VTEPs are reached from here.  FRR speaks it (apt install frr); it runs
beside the agent, listens nowhere, and needs no configuration of its own.

Networks are exported by 'overlayd network create --evpn --vni N'.  Name two route reflectors: with
one, its death takes the routes of all from all.  A VTEP outside of --vtep-prefix is refused, since
EVPN is not authenticated as gossip is; by default it is the subnet of this host's underlay address.
Without options, FRR is started again as before, or the cluster's settings are followed.

With --cluster, one record has the settings for all hosts that have FRR.  It holds no password:
where one is needed, give it to each host (enable --password-file FILE).  A host's own settings
have precedence until 'evpn disable', after which the host stays out.

  sudo overlayd evpn enable --asn 65000 --neighbor 10.0.0.1 --neighbor 10.0.0.2
  sudo overlayd evpn enable --asn 65000 --neighbor 10.0.0.1 --neighbor 10.0.0.2 \\
       --vtep-prefix 10.9.0.0/16 --password-file /root/bgp --ttl-security 1
  sudo overlayd evpn enable --cluster --asn 65000 --neighbor 10.0.0.1 --neighbor 10.0.0.2
"""
DISABLE_DESCRIPTION = """\
Withdraw everything that this host announced, end FRR's processes, and forget what the fabric told.
Containers on other hosts of the cluster are reached as before.  Where the cluster has settings,
this host stays out of it until 'evpn enable'; with --cluster, they are removed instead, and all
hosts that follow them disable EVPN.

  sudo overlayd evpn disable
  sudo overlayd evpn disable --cluster
"""
STATUS_DESCRIPTION = """\
Show the sessions of this host, whose settings it uses, what it takes of each exported network, and
conflicts.

  overlayd evpn status
  overlayd evpn status --json
"""
LS_DESCRIPTION = """\
List the containers behind outside VTEPs, as the fabric tells and this host takes them.

  overlayd evpn ls
  overlayd evpn ls blue
"""
RUN_DESCRIPTION = """\
Keep FRR's processes running, in the foreground, until EVPN is disabled.  'evpn enable' starts this
by itself, as the unit overlayd-evpn.service where systemd runs.

  sudo overlayd evpn run
  sudo overlayd --run-dir /run/overlayd evpn run
"""
_POLL_S = 0.2
_DEGRADED = 4


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    group = words.group("evpn", "join networks with a BGP EVPN fabric, through FRR")
    enable = group.verb(
        "enable", run_enable, "speak BGP EVPN from this host (root only)", ENABLE_DESCRIPTION
    )
    enable.add_argument("--asn", type=int, metavar="N", help="AS number of hosts and reflectors")
    enable.add_argument(
        "--neighbor",
        dest="neighbors",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="a route reflector; may be repeated, and two are advised",
    )
    enable.add_argument(
        "--vtep-prefix",
        dest="vtep_prefixes",
        action="append",
        default=[],
        metavar="CIDR",
        help="accept VTEPs of this range alone; may be repeated (default: the underlay's subnet)",
    )
    enable.add_argument(
        "--password-file", metavar="FILE", help="password of the sessions (TCP-MD5); -: stdin"
    )
    enable.add_argument(
        "--ttl-security",
        dest="ttl_hops",
        type=int,
        default=0,
        metavar="HOPS",
        help="refuse neighbors further away (GTSM, RFC 5082); 1: on the same segment",
    )
    enable.add_argument("--cluster", action="store_true", help="for all hosts, by one record")
    disable = group.verb(
        "disable", run_disable, "withdraw from the fabric (root only)", DISABLE_DESCRIPTION
    )
    disable.add_argument("--cluster", action="store_true", help="remove the settings of all hosts")
    status = "show sessions and networks"
    group.verb("status", run_status, status, STATUS_DESCRIPTION, watch=True)
    listed = group.verb("ls", run_ls, "list the fabric's containers", LS_DESCRIPTION, watch=True)
    listed.add_argument("network", nargs="?", metavar="NETWORK", help="only those of one network")
    add_list_options(listed)
    group.verb("run", run_supervisor, "keep FRR running (root only)", RUN_DESCRIPTION, json=False)


def run_enable(args: Namespace) -> int:
    """Enable EVPN, start FRR's supervisor, and wait for a session."""
    from overlay.kernel.evpn import process  # noqa: PLC0415  only this verb needs it

    client = ApiClient(args.paths)
    body: JsonObject = {
        "asn": args.asn,
        "neighbors": args.neighbors,
        "vtep_prefixes": args.vtep_prefixes,
        "ttl_hops": args.ttl_hops,
    }
    if args.cluster and args.asn is None:
        raise UsageError(
            "--cluster requires --asn",
            why="the record has all settings",
            hint="overlayd evpn enable --cluster --asn 65000 --neighbor 10.0.0.1; to follow the "
            "cluster's on this host: overlayd evpn enable",
        )
    if args.password_file is not None:
        body["password"] = _password(args.password_file)
    done = client.post("/v1/evpn/cluster" if args.cluster else "/v1/evpn", body)
    process.ensure_supervisor(args.paths.state_dir, args.paths.run_dir)
    shown = _wait_for_session(client, done)
    is_up = any(each["up"] for each in shown["neighbors"])
    if args.json:
        output.print_json({**done, **{key: shown[key] for key in shown if key != "schema"}})
    else:
        output.print_note("EVPN is enabled" if done["changed"] else "EVPN was enabled already")
        output.print_result(output.key_value_lines(_head(shown)))
    if not is_up:
        output.warn(
            "no BGP session is up yet",
            "The neighbors must accept this host, with the same AS number and password; see: "
            "overlayd evpn status",
        )
    return 0 if is_up else _DEGRADED


def _wait_for_session(client: ApiClient, shown: JsonObject) -> JsonObject:
    deadline = time.monotonic() + limits.EVPN_ENABLE_WAIT_S
    while not any(each["up"] for each in shown["neighbors"]) and time.monotonic() < deadline:
        time.sleep(_POLL_S)
        shown = client.get("/v1/evpn")
    return shown


def _password(path: str) -> str:
    text = read_secret(path, "password", limits.EVPN_PASSWORD_LENGTH_MAX + 2)
    password = text.removesuffix("\n").removesuffix("\r")
    if not password:
        where = "standard input" if path == STDIN else path
        raise UsageError(
            "the password is empty",
            why=f"{where} has no character",
            hint="Write the password that the fabric's routers have for this host into it",
        )
    return password


def run_disable(args: Namespace) -> int:
    """Disable EVPN; it is not an error if it is not enabled."""
    done = ApiClient(args.paths).delete("/v1/evpn/cluster" if args.cluster else "/v1/evpn")
    if args.json:
        output.print_json(done)
    elif args.cluster:
        text = "the cluster's settings are removed: all hosts that followed them disable EVPN"
        output.print_note(text if done["disabled"] else "the cluster has no settings of EVPN")
    elif done["disabled"]:
        output.print_note("EVPN is disabled: all is withdrawn, and FRR's processes end")
    else:
        output.print_note("EVPN was not enabled; nothing to do")
    return 0


def run_status(args: Namespace) -> int:
    """Show this host's part in EVPN."""
    shown = ApiClient(args.paths).get("/v1/evpn")
    if args.json:
        output.print_json(shown)
        return 0
    output.print_result(output.key_value_lines(_head(shown)))
    rows = [
        [
            each["network"],
            each["vni"],
            "yes" if each["here"] else "no",
            each["macs"],
            each["addresses"],
            each["vteps"],
        ]
        for each in shown["networks"]
    ]
    if rows:
        output.print_result("")
        headers = ["NETWORK", "VNI", "HERE", "MACS", "ADDRESSES", "VTEPS"]
        output.print_result(output.table(headers, rows))
    return 0


def _head(shown: JsonObject) -> list[tuple[str, str]]:
    if not shown["enabled"]:
        return [("EVPN", _disabled(shown))]
    sessions = [
        f"{each['address']} {'up' if each['up'] else 'down'}" for each in shown["neighbors"]
    ]
    refused = [f"{count} from {vtep}" for vtep, count in shown["refused_outside"].items()]
    if shown["refused_over_limit"]:
        refused.append(f"{shown['refused_over_limit']} over the limit")
    return [
        ("AS number", str(shown["asn"])),
        ("Settings", _source(shown)),
        ("Sessions", ", ".join(sessions) + _protection(shown)),
        ("Table", "complete" if shown["settled"] else "kept until a session is up and has settled"),
        ("FRR", _processes(shown)),
        ("VTEPs within", ", ".join(shown["vtep_prefixes"])),
        ("Announced", f"{shown['announced']} MACs and addresses of this host"),
        ("Refused", "; ".join(refused) or "nothing"),
        *(("Conflict", _conflict(each)) for each in shown["conflicts"]),
    ]


def _protection(shown: JsonObject) -> str:
    password = ", by password" if shown["has_password"] else ""
    return password + (f", at most {shown['ttl_hops']} hops" if shown["ttl_hops"] else "")


def _disabled(shown: JsonObject) -> str:
    if shown["lacks_password"]:
        return (
            "disabled: the cluster's settings need a password (sudo overlayd evpn enable "
            "--password-file FILE)"
        )
    if shown["cluster"] is not None:
        return (
            f"disabled on this host; the cluster has AS {shown['cluster']['asn']} (to follow it: "
            "sudo overlayd evpn enable)"
        )
    return "disabled; to enable it: sudo overlayd evpn enable --help"


def _source(shown: JsonObject) -> str:
    cluster = shown["cluster"]
    if shown["source"] == "cluster":
        return f"of the cluster, as {cluster['writer']} wrote them" if cluster else "of the cluster"
    return "of this host" + ("" if cluster is None else ", in place of the cluster's")


def _conflict(shown: JsonObject) -> str:
    return (
        f"{shown['subject']} on {shown['network']}: the fabric has it at {shown['vtep']}, "
        f"the cluster as {shown['endpoint']} on {shown['node']}"
    )


def _processes(shown: JsonObject) -> str:
    text = f"runs, zebra in {shown['shadow']}" if shown["frr"] else "does not run"
    if shown["supervised"]:
        return text
    return f"{text}; nothing starts it again (sudo overlayd evpn enable)"


def run_ls(args: Namespace) -> int:
    """List the containers behind outside VTEPs."""
    listed = ApiClient(args.paths).get("/v1/evpn/endpoints", network=args.network)
    if print_rows(args, listed, "endpoints", "mac"):
        return 0
    if not listed["endpoints"]:
        output.print_note("nothing is known of outside VTEPs; see: overlayd evpn status")
        return 0
    headers = ["NETWORK", "ADDRESS", "MAC", "VTEP"]
    rows = [
        [each["network"], each["ips"], each["mac"], each["vtep"]] for each in listed["endpoints"]
    ]
    output.print_result(output.table(headers, rows, show_header=not args.no_header))
    if listed["more"]:
        output.print_note(f"{listed['more']} more are not shown")
    return 0


def run_supervisor(args: Namespace) -> int:
    """Keep FRR's processes running."""
    import logging  # noqa: PLC0415  only this verb needs it

    from overlay.kernel.evpn import supervisor  # noqa: PLC0415  as above

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s: %(message)s")
    state_dir: Path = args.paths.state_dir
    supervisor.run(state_dir, args.paths.run_dir)
    return 0
