"""Commands `expose`, `unexpose`, `publish` and `unpublish`.

Owns: their options and output. Does not: know how a host endpoint is built.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.cli.options import all_hosts
from overlay.client.api import ApiClient, JsonObject
from overlay.errors import DegradedError, UsageError
from overlay.strict_arguments import Metavar

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup

EXPOSE_DESCRIPTION = """\
Give this host an address on a network.  The host and the network's containers on all hosts then
reach each other without NAT, and the containers on this host reach whatever this host reaches,
masqueraded behind its address.  stdout: the host's addresses.

A network is exposed automatically on every host that has a container on it, unless it was created
with --internal.  This command is for hosts without a container, and after 'unexpose'.

  sudo overlayd expose blue
"""
UNEXPOSE_DESCRIPTION = """\
Remove this host's address on a network.  Containers on this host no longer reach the outside
through that network, and this host no longer reaches its containers, until 'overlayd expose'.

  sudo overlayd unexpose blue
"""
PUBLISH_DESCRIPTION = """\
Map ports of this host to a container, for other hosts, this host and its containers.
The mapping follows the name to whichever host the container is on.  'publish ls' lists all, and
those that services publish on every host.

With --all-hosts every host of the cluster answers, also one that joins later.  This makes a service
called NAME-published, which any host may change or remove.

  sudo overlayd publish web 8080:80 9000-9009
  sudo overlayd publish resolver 53:53/udp 53:53 --network blue --host-ip 192.168.56.11
  sudo overlayd publish web 8080:80 --all-hosts --source 10.0.0.0/16
  overlayd publish ls
"""
UNPUBLISH_DESCRIPTION = """\
Remove published ports of a container: the given ones, or all.

  sudo overlayd unpublish web 8080
  sudo overlayd unpublish web
  sudo overlayd unpublish web --all-hosts
"""
PORT_HINT = "Such as 8080:80, 53:53/udp, 8000-8009:80-89, or 8080 for 8080:8080"
HEADERS = ("HOST PORT", "CONTAINER", "NETWORK", "TARGET", "STATE")


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    expose = words.verb(
        "expose", run_expose, "give this host an address on a network", EXPOSE_DESCRIPTION
    )
    unexpose = words.verb(
        "unexpose", run_unexpose, "remove this host's address on a network", UNEXPOSE_DESCRIPTION
    )
    for verb in (expose, unexpose):
        verb.add_argument("network", metavar="NETWORK")
    publish = words.verb(
        "publish",
        run_publish,
        "map ports of this host to a container",
        PUBLISH_DESCRIPTION,
        watch=True,
    )
    publish.add_argument("--host-ip", metavar="ADDRESS", help="only on this address of the host")
    publish.add_argument(
        "--source",
        dest="sources",
        action="append",
        default=[],
        metavar="CIDR",
        help="with --all-hosts: only clients of this range may ask; repeatable",
    )
    publish.add_argument("--no-header", action="store_true", help="with ls: omit the header line")
    unpublish = words.verb(
        "unpublish", run_unpublish, "remove published ports", UNPUBLISH_DESCRIPTION
    )
    for verb, kind in ((publish, "publishable"), (unpublish, "endpoints")):
        verb.add_argument(
            "name",
            metavar=Metavar("ENDPOINT", kind=kind),
            help="DNS name of a container, or its TARGET",
        )
        verb.add_argument(
            "ports",
            nargs="*",
            default=[],
            metavar="HOST:CONTAINER[/udp]",
            help="port numbers, or ranges such as 8000-8009; a single one means the same on both",
        )
        verb.add_argument("--network", metavar="NETWORK", help="network on which it has that name")
        verb.add_argument(
            "--all-hosts", action="store_true", help="on every host of the cluster, not on this one"
        )


def run_publish(args: Namespace) -> int:
    """Publish ports, or list the published ports."""
    client = ApiClient(args.paths)
    if args.name == "ls" and not args.ports:
        return _list(client, args)
    if args.watch:
        raise UsageError("--watch applies to 'publish ls'", hint="overlayd publish ls --watch")
    if not args.ports:
        raise UsageError(f"no port given to publish for {args.name}", hint=PORT_HINT)
    from overlay.core.dataplane.published_port import parse_pairs  # noqa: PLC0415  only for this

    for text in args.ports:
        parse_pairs(text)
    if args.all_hosts:
        return _publish_on_all(client, args)
    if args.sources:
        raise UsageError("--source applies to --all-hosts", hint="Add --all-hosts, or a firewall")
    body: JsonObject = {"name": args.name, "ports": args.ports}
    body |= {"network": args.network, "host_ip": args.host_ip}
    done = client.post("/v1/published", body)
    if args.json:
        output.print_json(done)
    else:
        output.print_note(f"published {' '.join(done['ports'])} for {done['name']}")
    return _warn_of_rules(done, "it leads nowhere yet")


def _warn_of_rules(answer: JsonObject, what: str) -> int:
    """Warn if the kernel refuses the host's rules, for what that means; return the exit code."""
    fault = answer.get("fault")  # an agent of before does not tell
    if not fault:
        return 0
    output.warn(f"{what}: {fault}", "The agent retries; see: overlayd status")
    return DegradedError.exit_code


def _publish_on_all(client: ApiClient, args: Namespace) -> int:
    if args.host_ip is not None:
        raise UsageError(
            "--host-ip and --all-hosts exclude each other",
            why="an address is one host's",
            hint="Leave one of them out",
        )
    made = all_hosts.publish(client, args)
    if args.json:
        output.print_json(made)
    else:
        ports = " ".join(map(all_hosts.text_of, made["publish"]))
        output.print_note(f"published {ports} for {args.name} on every host (by {made['name']})")
    return 0


def _unpublish_on_all(args: Namespace) -> int:
    gone = all_hosts.unpublish(ApiClient(args.paths), args)
    if args.json:
        found = {"name": args.name, "ports": [all_hosts.text_of(each) for each in gone]}
        output.print_json({"schema": "overlayd.unpublish-all-hosts/v1", **found})
    elif gone:
        ports = " ".join(map(all_hosts.text_of, gone))
        output.print_note(f"unpublished {ports} for {args.name} on every host")
    else:
        output.print_note(f"no such port is published on every host for {args.name}")
    return 0


def run_unpublish(args: Namespace) -> int:
    """Remove published ports."""
    if args.all_hosts:
        return _unpublish_on_all(args)
    body: JsonObject = {"name": args.name, "ports": args.ports, "network": args.network}
    gone = ApiClient(args.paths).post("/v1/unpublish", body)
    if args.json:
        output.print_json(gone)
        return 0
    if gone["ports"]:
        output.print_note(f"unpublished {' '.join(gone['ports'])} for {gone['name']}")
    if gone["missing"]:
        ports = " ".join(gone["missing"])
        output.print_note(f"not published on this host for {gone['name']}: {ports}")
    elif not gone["ports"]:
        output.print_note(f"no port of this host is published for {gone['name']}")
    return 0


def _list(client: ApiClient, args: Namespace) -> int:
    listed = client.get("/v1/published")
    if args.json:
        output.print_json(listed)
        return 0
    rows = [
        (
            f"{_address(each['host_ip'])}:{each['host_port']}/{each['protocol']}",
            each["name"],
            each["network"],
            [f"{_address(ip)}:{each['port']}" for ip in each["ips"]],
            _state(each),
        )
        for each in listed["published"]
    ]
    if rows:
        output.print_result(output.table(HEADERS, rows, show_header=not args.no_header))
    else:
        output.print_note("no published ports on this host")
    return 0


def _state(port: JsonObject) -> str:
    """Return whether a port works, and who else may remove it."""
    owner = "a file" if port.get("owner") == "declared" else port.get("owner")
    state = "ok" if port["source_kept"] else "ok, source address is this host's"
    if owner == "service" and not port["source_kept"]:
        state += " at backends of others"
    return f"{port['fault'] or state}{f' (by {owner})' if owner else ''}"


def _address(ip: str | None) -> str:
    return "*" if ip is None else f"[{ip}]" if ":" in ip else ip


def run_expose(args: Namespace) -> int:
    """Expose a network on this host."""
    exposed = _set(args, "/v1/expose")
    if args.json:
        output.print_json(exposed)
    else:
        output.print_result("\n".join(exposed["host_ips"]))
    return _warn_of_rules(exposed, "containers do not reach beyond this host yet")


def run_unexpose(args: Namespace) -> int:
    """Remove this host's address on a network."""
    hidden = _set(args, "/v1/unexpose")
    if args.json:
        output.print_json(hidden)
    else:
        state = "is no longer exposed" if hidden["changed"] else "was not exposed"
        output.print_note(f"{hidden['network']} {state} on this host")
    return 0


def _set(args: Namespace, path: str) -> JsonObject:
    return ApiClient(args.paths).post(path, {"network": args.network})
