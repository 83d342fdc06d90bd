"""Options that several verbs share, and how their texts become the API's fields."""

from __future__ import annotations

from typing import TYPE_CHECKING

from overlay.cli.options import rates
from overlay.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from overlay.cli.parser import Parser
    from overlay.client.api import JsonObject


def add_attach_options(parser: Parser, *, network_required: bool) -> None:
    """Add what can be said about an endpoint that is to be made."""
    parser.add_argument(
        "--network",
        dest="networks",
        action="append",
        required=network_required,
        default=None if network_required else [],
        metavar="NETWORK" if network_required else "WHERE",
        help="repeat for several"
        if network_required
        else "a network, and repeat for several; or none, host, container:NAME",
    )
    parser.add_argument("--ip", metavar="ADDRESS", help="this address and no other")
    parser.add_argument("--mac", help="this MAC address (default: made from network and address)")
    parser.add_argument("--ifname", help="interface in the container (default: next free ethN)")
    parser.add_argument(
        "--no-default-route",
        dest="default_route",
        action="store_false",
        help="leave the container's default route as it is",
    )
    parser.add_argument(
        "--gateway-priority",
        type=int,
        metavar="N",
        help="of its networks the one with the highest N has the default route (default: 0)",
    )
    parser.add_argument(
        "--alias",
        dest="aliases",
        action="append",
        default=[],
        metavar="NAME",
        help="a further name for it; repeat",
    )
    add_label_option(parser)
    _add_rate_options(parser)
    parser.add_argument(
        "--no-port-security",
        dest="port_security",
        action="store_false",
        help="let it send from any MAC and address, and be a router or DHCP server",
    )
    parser.add_argument(
        "--publish",
        action="append",
        default=[],
        metavar="HOST:CONTAINER[/udp]",
        help="let a port of this host lead to it, on the first of its networks; repeat",
    )
    parser.add_argument(
        "--wait",
        choices=("all", "none"),
        default="all",
        help="return when every live node can reach it (all, at most 1 s), or at once",
    )


def _add_rate_options(parser: Parser) -> None:
    for option, what in (
        ("--rate", "at most this much to it, and as much from it: 10mbit; none lifts it"),
        ("--rate-in", "at most this much to it"),
        ("--rate-out", "at most this much from it"),
    ):
        parser.add_argument(option, metavar="RATE", help=what)


def add_label_option(parser: Parser) -> None:
    """Add `--label`, for what lists can be filtered by."""
    parser.add_argument(
        "--label",
        dest="labels",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="shown by lists, which can filter by it; repeat",
    )


def attach_fields(args: Namespace) -> JsonObject:
    """Return the API's fields for those options; raises UsageError if they contradict."""
    networks = list(dict.fromkeys(args.networks))
    for option, value in (("--ip", args.ip), ("--mac", args.mac), ("--ifname", args.ifname)):
        if value is not None and len(networks) > 1:
            raise UsageError(
                f"{option} names one thing, but there are {len(networks)} networks",
                hint="Attach to one network after the other",
            )
    return {
        "networks": networks,
        "ip": args.ip,
        "mac": args.mac,
        "ifname": args.ifname,
        "default_route": args.default_route,
        "aliases": args.aliases,
        "labels": pairs(args.labels, "labels"),
        "port_security": args.port_security,
        **_rates(args),
        **({} if args.gateway_priority is None else {"gateway_priority": args.gateway_priority}),
        "wait": args.wait,
    }


def _rates(args: Namespace) -> JsonObject:
    """Return the limits asked for: one direction's own option goes before that for both."""
    found: JsonObject = {}
    for field, text in (("rate_in", args.rate_in), ("rate_out", args.rate_out)):
        option, chosen = (field, text) if text is not None else ("rate", args.rate)
        if chosen is not None:
            found[field] = rates.parse(chosen, option)
    return found


def pairs(
    texts: Sequence[str], field: str, shape: str = "KEY=VALUE", example: str = "team=a"
) -> dict[str, str]:
    """Return `KEY=VALUE` texts of a field as a mapping; raises UsageError on any other."""
    result = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not key or not equals:
            raise UsageError(f"{text!r} is not {shape}", hint=f"Such as {example}", field=field)
        result[key] = value
    return result
