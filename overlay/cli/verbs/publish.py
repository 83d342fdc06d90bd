"""Verbs about how networks meet the host and the world: expose, publish, and their contraries.

Owns: their options and words. Must not know what an end of the host is made of.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.cli.options.common import require_ports
from overlay.client.api import ApiClient, JsonObject
from overlay.errors import ConflictError, UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

EXPOSE_DESCRIPTION = """\
Give this host an end on a network: an address of its own there, by which it and all containers of
the network, on every host, reach each other without NAT; and a way out for the containers here to
whatever this host reaches, under its address.  stdout: the host's addresses.

Networks are exposed by themselves on every host with a container on them, unless they were made
with --internal; this verb is for hosts without one, and after 'unexpose'.

  sudo overlayd expose blue
"""
UNEXPOSE_DESCRIPTION = """\
Take this host's end on a network away: containers here get out no more, and this host reaches
none of the network's.  It stays so until 'overlayd expose'.

  sudo overlayd unexpose blue
"""
PUBLISH_DESCRIPTION = """\
Let ports of this host lead to a container: for other hosts, for this one, and for containers.
The port follows the name, wherever the container is.  'publish ls' lists what is published.

  sudo overlayd publish web 8080:80 9000-9009
  sudo overlayd publish resolver 53:53/udp 53:53 --network blue --host-ip 192.168.56.11
  overlayd publish ls
"""
UNPUBLISH_DESCRIPTION = """\
Take published ports of a container back: those named, or all.

  sudo overlayd unpublish web 8080
  sudo overlayd unpublish web
"""
PORT_HINT = "Such as 8080:80, 53:53/udp, 8000-8009:80-89, or 8080 for 8080:8080"
HEADERS = ("HOST PORT", "CONTAINER", "NETWORK", "LEADS TO", "STATE")


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    expose = words.verb(
        "expose", run_expose, "give this host an end on a network", EXPOSE_DESCRIPTION
    )
    unexpose = words.verb(
        "unexpose", run_unexpose, "take this host's end on a network away", UNEXPOSE_DESCRIPTION
    )
    for verb in (expose, unexpose):
        verb.add_argument("network", metavar="NETWORK")
    publish = words.verb(
        "publish", run_publish, "let ports of this host lead to a container", PUBLISH_DESCRIPTION
    )
    publish.add_argument("--host-ip", metavar="ADDRESS", help="on this address of the host alone")
    publish.add_argument("--no-header", action="store_true", help="ls: rows only")
    unpublish = words.verb(
        "unpublish", run_unpublish, "take published ports back", UNPUBLISH_DESCRIPTION
    )
    for verb in (publish, unpublish):
        verb.add_argument("name", metavar="ENDPOINT", help="a container's name on a network")
        verb.add_argument(
            "ports",
            nargs="*",
            default=[],
            metavar="HOST:CONTAINER[/udp]",
            help="port numbers, or ranges as 8000-8009; one: the same on both",
        )
        verb.add_argument("--network", metavar="NETWORK", help="the one on which it has that name")


def run_publish(args: Namespace) -> int:
    """Publish ports, or list what is published."""
    client = ApiClient(args.paths)
    if args.name == "ls" and not args.ports:
        return _list(client, args)
    if not args.ports:
        raise UsageError(f"no port to publish for {args.name} is given", hint=PORT_HINT)
    require_ports(args.ports)
    body: JsonObject = {"name": args.name, "ports": args.ports}
    body |= {"network": args.network, "host_ip": args.host_ip}
    done = client.post("/v1/published", body)
    if args.json:
        output.print_json(done)
    else:
        output.print_note(f"published {' '.join(done['ports'])} for {done['name']}")
    return 0


def publish_attached(client: ApiClient, args: Namespace, attached: JsonObject) -> None:
    """Publish what the line asks for of a container that was just attached."""
    if not args.publish:
        return
    if not attached["endpoints"]:
        raise ConflictError(
            "a port leads to a container on a network",
            why="the container is made, and on none of its own",
            hint="overlayd publish NAME, of a container whose network it shares",
        )
    endpoint = attached["endpoints"][0]
    body: JsonObject = {"name": endpoint["name"], "network": endpoint["network"]}
    done = client.post("/v1/published", body | {"ports": args.publish})
    if not args.json:
        output.print_note(f"published {' '.join(done['ports'])} for {done['name']}")


def run_unpublish(args: Namespace) -> int:
    """Take published ports back."""
    body: JsonObject = {"name": args.name, "ports": args.ports, "network": args.network}
    gone = ApiClient(args.paths).post("/v1/unpublish", body)
    if args.json:
        output.print_json(gone)
    elif gone["ports"]:
        output.print_note(f"no more published for {gone['name']}: {' '.join(gone['ports'])}")
    else:
        output.print_note(f"nothing of that is published for {gone['name']}")
    return 0


def _list(client: ApiClient, args: Namespace) -> int:
    listed = client.get("/v1/published")
    if args.json:
        output.print_json(listed)
        return 0
    rows = [
        (
            f"{_place(each['host_ip'])}:{each['host_port']}/{each['protocol']}",
            each["name"],
            each["network"],
            [f"{_place(ip)}:{each['port']}" for ip in each["ips"]],
            each["fault"] or ("ok" if each["source_kept"] else "ok, from this host's address"),
        )
        for each in listed["published"]
    ]
    if rows:
        output.print_result(output.table(HEADERS, rows, show_header=not args.no_header))
    else:
        output.print_note("no port of this host is published")
    return 0


def _place(ip: str | None) -> str:
    return "*" if ip is None else f"[{ip}]" if ":" in ip else ip


def run_expose(args: Namespace) -> int:
    """Expose a network to this host."""
    exposed = _set(args, "/v1/expose")
    if args.json:
        output.print_json(exposed)
    else:
        output.print_result("\n".join(exposed["host_ips"]))
    return 0


def run_unexpose(args: Namespace) -> int:
    """Take this host off a network."""
    hidden = _set(args, "/v1/unexpose")
    if args.json:
        output.print_json(hidden)
    else:
        done = "is exposed to this host no more" if hidden["changed"] else "is not exposed here"
        output.print_note(f"{hidden['network']} {done}")
    return 0


def _set(args: Namespace, path: str) -> JsonObject:
    return ApiClient(args.paths).post(path, {"network": args.network})
