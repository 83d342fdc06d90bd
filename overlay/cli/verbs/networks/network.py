"""Commands `network create`, `ls`, `inspect`, `rm` and `prune`.

Owns: their options and output. Does not: know which networks are valid; the agent checks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.cli.options import rates, subnets
from overlay.cli.options.common import add_label_option, pairs
from overlay.cli.options.filters import add_filter_option, filter_rows
from overlay.cli.options.lists import (
    add_format_option,
    add_list_options,
    print_one,
    print_rows,
)
from overlay.cli.options.removal import remove_all
from overlay.cli.verbs.networks import endpoints, plug, settings
from overlay.client.api import ApiClient, JsonObject, segment

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup
    from overlay.strict_arguments import StrictParser

LS_HEADERS = ("NAME", "DRIVER", "VNI", "SUBNETS", "ENDPOINTS", "HOSTS")
FILTERS = {"name": "name", "creator": "creator", "driver": "driver"}
CREATE_DESCRIPTION = """\
Create a network: one L2 segment across all hosts.  It is available everywhere at once, and
uses no resources on a host until a container is attached there.

A bridge network exists on this host only.  A macvlan or ipvlan network is the physical segment
of an interface of the hosts, with that segment's own router; reserve a range of addresses for it
that no other allocator on the segment uses.

  sudo overlayd network create blue --subnet 10.32.0.0/16
  sudo overlayd network create two --subnet 10.40.0.0/24 --gateway 10.40.0.254 \\
       --subnet fd40::/64
  sudo overlayd network create red --subnet 10.50.0.0/16 --block-size 24 \\
       --aux-address router=10.50.0.2
  sudo overlayd network create both --ipv6
  sudo overlayd network create vault --encrypted --default-deny
  sudo overlayd network create wide --evpn --vni 4100 --subnet 10.60.0.0/16 \\
       --ip-range 10.60.1.0/24
  sudo overlayd network create home --driver bridge
  sudo overlayd network create lan --driver macvlan --parent eth1.100 \\
       --subnet 192.168.7.0/24 --gateway 192.168.7.1 --ip-range 192.168.7.192/26
"""
PRUNE_DESCRIPTION = """\
Remove the networks on which no host of the cluster has containers.  Without --force they are
only listed.
"""


def register(words: VerbGroup) -> None:
    """Add the verbs of this module."""
    networks = words.group("network", "create, list, inspect and remove networks")
    _add_create_options(networks.verb("create", run_create, "create a network", CREATE_DESCRIPTION))
    listed = networks.verb("ls", run_ls, "list the networks", watch=True)
    add_filter_option(listed, FILTERS)
    add_list_options(listed)
    inspect = networks.verb("inspect", run_inspect, "show one network in detail")
    inspect.add_argument("name", metavar="NETWORK")
    add_format_option(inspect)
    remove = networks.verb("rm", run_rm, "remove networks that have no endpoints")
    remove.add_argument("names", nargs="+", metavar="NETWORK")
    prune = networks.verb("prune", run_prune, "remove all unused networks", PRUNE_DESCRIPTION)
    prune.add_argument("-f", "--force", action="store_true", help="remove them, do not only list")
    add_filter_option(prune, FILTERS)
    endpoints.register(networks)
    settings.register(networks)
    plug.register(networks)


def _add_create_options(create: StrictParser) -> None:
    create.add_argument("name", metavar="NAME", help="name of the network, unique in the cluster")
    create.add_argument(
        "--subnet",
        dest="subnets",
        action="append",
        default=[],
        metavar="CIDR",
        help="address range; may be repeated (default: a free one)",
    )
    create.add_argument(
        "--ipv6",
        action="store_true",
        help="also a random unique local IPv6 subnet (fdxx:xxxx:xxxx::/64)",
    )
    _add_address_options(create)
    create.add_argument(
        "--block-size",
        type=int,
        metavar="N",
        help="every host allocates from its own /N of each subnet that is larger",
    )
    _add_driver_options(create)
    create.add_argument("--vni", type=int, help="VXLAN network identifier (default: random)")
    create.add_argument(
        "--evpn",
        action="store_true",
        help="let hosts that speak BGP EVPN announce it to a fabric; needs --vni, the fabric's",
    )
    create.add_argument("--internal", action="store_true", help="no traffic to or from the outside")
    create.add_argument(
        "--isolate-subnets", action="store_true", help="do not route between its subnets"
    )
    _add_trust_options(create)
    add_label_option(create)
    create.add_argument(
        "--force", action="store_true", help="create it even if a route of this host overlaps"
    )


def _add_address_options(create: StrictParser) -> None:
    create.add_argument(
        "--gateway",
        dest="gateways",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="gateway address on every host, in its subnet (default: the first)",
    )
    create.add_argument(
        "--ip-range",
        dest="ranges",
        action="append",
        default=[],
        metavar="CIDR",
        help="allocate only from this part of its subnet, except for --ip; may be repeated",
    )
    create.add_argument(
        "--aux-address",
        dest="auxiliary",
        action="append",
        default=[],
        metavar="NAME=ADDRESS",
        help="never allocate this address: another device has it; may be repeated",
    )


def _add_trust_options(create: StrictParser) -> None:
    create.add_argument(
        "--encrypted",
        action="store_true",
        help="let its frames cross the underlay through WireGuard only",
    )
    create.add_argument(
        "--opt",
        choices=("encrypted",),
        help="encrypted: the same as --encrypted, as Docker swarm has it",
    )
    create.add_argument(
        "--attachable", action="store_true", help="no effect: every network is (Docker swarm)"
    )
    create.add_argument(
        "--no-port-security",
        dest="port_security",
        action="store_false",
        help="allow its containers any source MAC and address",
    )
    create.add_argument(
        "--any-name",
        action="store_true",
        help="let its DNS answer names with dots outside the cluster's domain",
    )
    create.add_argument(
        "--default-deny",
        action="store_true",
        help="deny new connections that no policy allows (see: overlayd policy create -h)",
    )
    create.add_argument(
        "--isolate-ports",
        action="store_true",
        help="let its containers reach the gateway and the world, but not each other; except "
        "those attached with --not-isolated, which all reach",
    )


def _add_driver_options(create: StrictParser) -> None:
    create.add_argument(
        "-d",
        "--driver",
        choices=("overlay", "bridge", "macvlan", "ipvlan"),
        default="overlay",
        help="overlay: all hosts; bridge: this host only; macvlan, ipvlan: segment of --parent",
    )
    create.add_argument(
        "--parent",
        metavar="INTERFACE",
        help="macvlan, ipvlan: interface on each host; a VLAN eth1.100 is created if missing",
    )


def run_create(args: Namespace) -> int:
    """Create a network."""
    created = ApiClient(args.paths).post(
        "/v1/networks",
        {
            "name": args.name,
            "subnets": subnets.subnets(
                args.subnets,
                args.gateways,
                args.ranges,
                pairs(args.auxiliary, "auxiliary", "NAME=ADDRESS", "router=10.50.0.2"),
                args.block_size,
            ),
            "vni": args.vni,
            "internal": args.internal,
            "labels": pairs(args.labels, "labels"),
            "port_security": args.port_security,
            "any_name": args.any_name,
            **({"default_deny": True} if args.default_deny else {}),
            **({"isolate_ports": True} if args.isolate_ports else {}),
            "force": args.force,
            **({"ipv6": True} if args.ipv6 else {}),
            **({"encrypted": True} if args.encrypted or args.opt else {}),
            **({"evpn": True} if args.evpn else {}),
            "isolate_subnets": args.isolate_subnets,
            "driver": args.driver,
            "parent": args.parent,
        },
    )
    if args.json:
        output.print_json(created)
    else:
        output.print_result(network_line(created))
    for overlap in created.get("overlaps") or []:
        output.warn(
            overlap,
            "A container on both reaches only one of them, and a host is on one of them alone; "
            "choose another --subnet unless they never meet",
        )
    return 0


def network_line(network: JsonObject) -> str:
    """Return one network in one line."""
    ranges = " ".join(subnet["subnet"] for subnet in network["subnets"])
    gateways = " ".join(subnet["gateway"] for subnet in network["subnets"])
    return f"{network['name']}  vni {network['vni']}  {ranges}  gateway {gateways}" + "".join(
        f"  {word.replace('_', ' ')}"
        for word in ("internal", "encrypted", "evpn", "default_deny", "isolate_ports")
        if network.get(word)
    )


def run_ls(args: Namespace) -> int:
    """List the networks."""
    listed = ApiClient(args.paths).get("/v1/networks")
    listed["networks"] = filter_rows(listed["networks"], args.filters, FILTERS)
    if print_rows(args, listed, "networks"):
        return 0
    if not listed["networks"] and args.filters:
        output.print_note("no network matches the filter")
        return 0
    if not listed["networks"]:
        output.print_note("no networks; to create one: overlayd network create NAME --subnet CIDR")
        return 0
    rows: list[tuple[object, ...]] = [
        (
            network["name"],
            network.get("driver", "overlay") + (" encrypted" if network.get("encrypted") else ""),
            network["vni"],
            [subnet["subnet"] for subnet in network["subnets"]],
            network["endpoints"],
            network["hosts"],
            [f"{each['interface']}@{each['node']}" for each in network.get("plugs") or []],
        )
        for network in listed["networks"]
    ]
    headers: tuple[str, ...] = (*LS_HEADERS, "PLUGS")
    if not any(row[-1] for row in rows):
        rows, headers = [row[:-1] for row in rows], LS_HEADERS
    output.print_result(output.table(headers, rows, show_header=not args.no_header))
    return 0


def run_inspect(args: Namespace) -> int:
    """Show one network."""
    shown = ApiClient(args.paths).get(f"/v1/networks/{segment(args.name)}")
    print_one(args, shown, inspect_text)
    return 0


def inspect_text(network: JsonObject) -> str:
    """Return the details of one network, for people."""
    labels = network.get("labels") or {}
    parts = [
        ("Network", network["name"]),
        ("Driver", " on ".join(filter(None, (network.get("driver"), network.get("parent"))))),
        ("VNI", str(network["vni"])),
        (
            "Subnets",
            "\n".join(
                f"{subnet['subnet']}  gateway {subnet['gateway']}{subnets.text(subnet)}"
                for subnet in network["subnets"]
            ),
        ),
        ("MTU", f"{network['mtu'] or ''}  {network.get('mtu_why', '')}".strip()),
        ("Internal", "yes" if network.get("internal") else "no"),
        ("Encrypted", _encrypted_text(network)),
        ("Default", _default_text(network)),
        ("Isolation", _isolation_text(network)),
        *([("Shared rate", _shared_text(network))] if network.get("shared_rate") else []),
        ("Routers", _routers_text(network)),
        ("Exposed", _exposed_text(network)),
        *([("Plugs", plug.plugs_text(network))] if network.get("plugs") else []),
        ("Labels", " ".join(f"{key}={value}" for key, value in labels.items()) or output.ABSENT),
        ("Creator", network["creator"]),
        ("Hosts", " ".join(network["hosts"]) or output.ABSENT),
    ]
    grants = network.get("grants") or []
    if grants:
        owned = "\n".join(f"{grant['addresses']} owned by {grant['node']}" for grant in grants)
        parts.append(("Addresses", owned))
    multicast = network.get("multicast") or []
    if any(host["groups"] for host in multicast):
        parts.append(("Multicast", "\n".join(map(_multicast_text, multicast))))
    text = output.key_value_lines(parts)
    endpoints = network["endpoint_list"]
    if not endpoints:
        is_known = network.get("endpoints") is not None
        told = "none" if is_known else "not known here: this host does not hold their records"
        return f"{text}\n{output.key_value_lines([('Endpoints', told)])}"
    rows = [(e["name"], e["ips"], e["mac"], e["node"], e["node_state"]) for e in endpoints]
    headers = ("NAME", "ADDRESS", "MAC", "NODE", "STATE")
    return f"{text}\n\n{output.table(headers, rows)}"


def _multicast_text(host: JsonObject) -> str:
    """Return the groups that a host gets."""
    wanted = " ".join(host["groups"]) or "no groups"
    return f"{host['node']}: every group" if host["all"] else f"{host['node']}: {wanted}"


def _encrypted_text(network: JsonObject) -> str:
    if not network.get("encrypted"):
        return "no"
    return f"yes, by WireGuard (tunnels: overlayd encryption status {network['name']})"


def _default_text(network: JsonObject) -> str:
    if not network.get("default_deny"):
        return "new connections are allowed"
    return "new connections are denied, unless a policy allows them (overlayd policy ls)"


def _routers_text(network: JsonObject) -> str:
    """Return the routers, each with the networks that it leads to."""
    return (
        "\n".join(
            f"{each['name']} to {' '.join(each['networks']) or 'no other network'}"
            for each in network.get("routers") or ()
        )
        or output.ABSENT
    )


def _isolation_text(network: JsonObject) -> str:
    endpoints = network["endpoint_list"]
    vlans = sorted({each["vlan"] for each in endpoints if each.get("vlan")})
    apart = sum(bool(each.get("isolated")) for each in endpoints)
    found = "containers reach only those attached with --not-isolated"
    if not network.get("isolate_ports"):
        found = f"{output.count_text(apart, 'isolated container')}" if apart else "none"
    return f"{found}; ports in VLANs {' '.join(vlans)}" if vlans else found


def _shared_text(network: JsonObject) -> str:
    """Return what the containers of each host may send to other hosts together."""
    return f"{rates.rate_text(network['shared_rate'])} for the containers of each host"


def _exposed_text(network: JsonObject) -> str:
    """Return which hosts have an endpoint on the network, and whether this one has."""
    lines = [f"{end['node']} {' '.join(end['ips'])}" for end in network.get("host_ends") or []]
    if not network.get("exposed"):
        why = network.get("exposed_why")
        lines.insert(0, f"not here ({why})" if why else "not here")
    return "\n".join(lines)


def run_rm(args: Namespace) -> int:
    """Remove networks, one by one."""
    return remove_all(args, "/v1/networks", "overlayd.network-rm/v1", args.names)


def run_prune(args: Namespace) -> int:
    """Remove the networks on which no host has containers; without --force, list them."""
    listed = ApiClient(args.paths).get("/v1/networks")["networks"]
    unused = [
        network["name"]
        for network in filter_rows(listed, args.filters, FILTERS)
        if not network["endpoints"] and not network["hosts"]
    ]
    if not unused and not args.json:
        which = "no network that matches" if args.filters else "no network"
        output.print_note(f"{which} is unused; nothing to remove")
    if args.force:
        return remove_all(args, "/v1/networks", "overlayd.network-prune/v1", unused)
    if args.json:
        output.print_json(
            {"schema": "overlayd.network-prune/v1", "unused": unused, "removed": [], "failed": []}
        )
        return 0
    for name in unused:
        output.print_result(name)
    if unused:
        output.print_note(
            f"{output.count_text(len(unused), 'network')} without containers on any host; to "
            f"remove {'it' if len(unused) == 1 else 'them'}: sudo overlayd network prune --force"
        )
    return 0
