"""Options of `attach` and `container add`, and the API fields they become."""

from __future__ import annotations

from overlay.cli.options import rates
from overlay.cli.options.controls import add_control_options, control_fields
from overlay.cli.options.isolation import add_isolation_options, isolation_fields
from overlay.cli.start_wait import TIMEOUT_S
from overlay.errors import UsageError

TYPE_CHECKING = False  # typing itself takes a tenth of a command's time to import
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from overlay.client.api import JsonObject
    from overlay.strict_arguments import StrictParser


def add_network_option(parser: StrictParser, *, required: bool) -> None:
    """Add `--network`: where a new endpoint goes."""
    parser.add_argument(
        "--network",
        dest="networks",
        action="append",
        required=required,
        default=None if required else [],
        metavar="NETWORK" if required else "WHERE",
        help="network to attach to; may be repeated"
        if required
        else "network (may be repeated), or none, host, container:NAME",
    )


def add_attach_options(parser: StrictParser, *, may_start_later: bool) -> None:
    """Add the options of a new endpoint, but for its network.

    `may_start_later`: the container exists, or will, and may be attached at its start.
    """
    _add_interface_options(parser)
    parser.add_argument(
        "--no-default-route",
        dest="default_route",
        action="store_false",
        help="do not change the container's default route",
    )
    parser.add_argument(
        "--gateway-priority",
        type=int,
        metavar="N",
        help="the network with the highest N provides the default route (default: 0)",
    )
    _add_lasting_options(parser)
    parser.add_argument(
        "--shared-name",
        action="store_true",
        help="let other containers with this option have its DNS name; DNS answers all of them",
    )
    parser.add_argument(
        "--alias",
        dest="aliases",
        action="append",
        default=[],
        metavar="NAME",
        help="additional DNS name; may be repeated",
    )
    add_label_option(parser)
    _add_rate_options(parser)
    add_control_options(parser, of="it")
    parser.add_argument(
        "--no-port-security",
        dest="port_security",
        action="store_false",
        help="allow any source MAC and address, and router or DHCP server traffic",
    )
    parser.add_argument(
        "--allow-dhcp-server",
        action="store_true",
        help="let it answer DHCP and DHCPv6 requests of its network, from its own addresses",
    )
    parser.add_argument(
        "--allow-ra",
        action="store_true",
        help="let it send IPv6 router advertisements, from its own addresses",
    )
    parser.add_argument(
        "--publish",
        action="append",
        default=[],
        metavar="HOST:CONTAINER[/udp]",
        help="publish a port of this host to it, on its first network; may be repeated",
    )
    _add_wait_option(parser, may_start_later=may_start_later)


def _add_wait_option(parser: StrictParser, *, may_start_later: bool) -> None:
    """Add `--wait`."""
    summary = "all: return when every live node can reach it (at most 1 s); none: at once"
    if not may_start_later:
        parser.add_argument("--wait", choices=("all", "none"), default="all", help=summary)
        return
    parser.add_argument(
        "--wait",
        choices=("all", "none", "start"),
        nargs="?",
        const="start",
        default="all",
        help=f"{summary}; start, or --wait alone: attach it at its start, which may be later (exit "
        f"7 after --timeout SECONDS; default: {TIMEOUT_S:.0f}), then as for all",
    )


def _add_interface_options(parser: StrictParser) -> None:
    parser.add_argument(
        "--ip",
        dest="ips",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="IP address (default: the next free one); once for each family",
    )
    parser.add_argument(
        "--allow-ip",
        dest="allow_ips",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="address that it may use beside its own, such as a virtual one that moves between "
        "containers: reserved by --aux-address, or of no subnet; may be repeated",
    )
    parser.add_argument(
        "--allow-mac",
        dest="allow_macs",
        action="append",
        default=[],
        metavar="MAC",
        help="MAC that it may use beside its own, such as that of a container inside it; may be "
        "repeated",
    )
    add_isolation_options(parser)
    parser.add_argument("--mac", help="MAC address (default: derived from network and address)")
    parser.add_argument("--ifname", help="interface in the container (default: next free ethN)")


def _add_lasting_options(parser: StrictParser) -> None:
    parser.add_argument(
        "--hands-off",
        action="store_true",
        help="do not restore what the container's programs change in its interface",
    )
    parser.add_argument(
        "--keep",
        action="store_true",
        help="attach each later container of this name likewise, until 'detach'",
    )


def _add_rate_options(parser: StrictParser) -> None:
    for option, summary in (
        ("--rate", "limit both directions, such as 10mbit; none removes the limit"),
        ("--rate-in", "limit traffic to the container"),
        ("--rate-out", "limit traffic from the container"),
    ):
        parser.add_argument(option, metavar="RATE", help=summary)


def add_label_option(parser: StrictParser) -> None:
    """Add `--label`, by which lists can be filtered."""
    parser.add_argument(
        "--label",
        dest="labels",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="label for lists and their --filter; may be repeated",
    )


def attach_fields(args: Namespace) -> JsonObject:
    """Return the API's fields for those options.

    Raises UsageError if options contradict each other, or for an invalid port to publish.
    """
    first: dict[str, str] = {}  # the first spelling of each name
    for name in args.networks:
        first.setdefault(name.lower(), name)
    networks = list(first.values())
    _require_publishable(args.publish, networks)
    for option, value in (
        ("--ip", args.ips),
        ("--allow-ip", args.allow_ips),
        ("--allow-mac", args.allow_macs),
        ("--mac", args.mac),
        ("--ifname", args.ifname),
    ):
        if value and len(networks) > 1:
            raise UsageError(
                f"{option} applies to a single network, but {len(networks)} were given",
                hint="Attach to each network separately",
            )
    return {
        "networks": networks,
        "ip": args.ips[0] if len(args.ips) == 1 else None,
        **({"ips": args.ips} if len(args.ips) > 1 else {}),
        "mac": args.mac,
        "ifname": args.ifname,
        "default_route": args.default_route,
        "aliases": args.aliases,
        "labels": pairs(args.labels, "labels"),
        "port_security": args.port_security,
        **_rates(args),
        **control_fields(args),
        **({"allow_ips": args.allow_ips} if args.allow_ips else {}),
        **({"allow_macs": args.allow_macs} if args.allow_macs else {}),
        **({"allow_dhcp_server": True} if args.allow_dhcp_server else {}),
        **({"allow_ra": True} if args.allow_ra else {}),
        **isolation_fields(args),
        **({} if args.gateway_priority is None else {"gateway_priority": args.gateway_priority}),
        **({"hands_off": True} if args.hands_off else {}),
        **({"keep": True} if args.keep else {}),
        **({"shared_name": True} if args.shared_name else {}),
        **({"publish": args.publish} if args.publish else {}),
        "wait": "none" if args.wait == "none" else "all",
    }


def _require_publishable(ports: Sequence[str], networks: Sequence[str]) -> None:
    """Raise UsageError if `--publish` cannot succeed once the container is attached."""
    if not ports:
        return
    from overlay.core.dataplane.published_port import parse_pairs  # noqa: PLC0415  rarely needed

    for text in ports:
        parse_pairs(text, "publish")
    if set(networks) <= {"none", "host"}:
        raise UsageError(
            "a published port needs a container on a network",
            why="this one is not on any",
            hint="Give its network: --network NETWORK",
            field="publish",
        )


def _rates(args: Namespace) -> JsonObject:
    """Return the requested rate limits; --rate-in and --rate-out override --rate."""
    found: JsonObject = {}
    for field, text in (("rate_in", args.rate_in), ("rate_out", args.rate_out)):
        option, chosen = (field, text) if text is not None else ("rate", args.rate)
        if chosen is not None:
            found[field] = rates.parse(chosen, option)
    return found


def pairs(
    texts: Sequence[str], field: str, shape: str = "KEY=VALUE", example: str = "team=a"
) -> dict[str, str]:
    """Return `KEY=VALUE` texts of a field as a mapping; raises UsageError if one is not."""
    result: dict[str, str] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"{text!r} is not {shape}", hint=f"Such as {example}", field=field)
        if result.setdefault(key, value) != value:
            raise UsageError(
                f"{key} is given twice",
                why=f"once as {result[key]!r}, once as {value!r}",
                hint="Leave one of them out",
                field=field,
            )
    return result
