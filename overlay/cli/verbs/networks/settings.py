"""Command `network set`: change a network while containers are on it.

Owns: its options and output. Does not: know what may change; the agent says.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from overlay.cli import output
from overlay.cli.options import rates
from overlay.cli.options.common import pairs
from overlay.cli.options.controls import add_control_options, control_fields
from overlay.client.api import ApiClient, JsonObject, segment
from overlay.errors import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.cli.parser import VerbGroup
    from overlay.strict_arguments import StrictParser

SET_DESCRIPTION = """\
Change a network while containers are on it, from any host.  All hosts follow within a second;
connections stay, except those that an option forbids from then on.  What is not named stays.

Its subnets, gateways, VNI, driver, parent and encryption cannot change: containers, tunnels and
routes on all hosts depend on them.  --evpn on announces it to a BGP EVPN fabric, which must know it
by the VNI that it has: --vni checks that.

  sudo overlayd network set blue --add-label team=a --ip-range 10.32.8.0/21
  sudo overlayd network set blue --mtu 1300 --rate-in 10mbit
  sudo overlayd network set blue --shared-rate 100mbit
  sudo overlayd network set blue --internal --default-deny on
  sudo overlayd network set blue --storm 200 --allow-non-ip 0x88f7 --priority 0
  sudo overlayd network set wide --evpn on --vni 4100
"""
AUTOMATIC = "auto"
_FLAGS = (
    (
        "internal",
        ("--internal", "no traffic to or from the outside"),
        ("--no-internal", "allow traffic to and from the outside"),
    ),
    (
        "port_security",
        ("--port-security", "its containers may send from their own MACs and addresses only"),
        ("--no-port-security", "its containers may send from any MAC and address"),
    ),
    (
        "any_name",
        ("--any-name", "its DNS answers names with dots outside the cluster's domain"),
        ("--no-any-name", "its DNS answers names with dots in the cluster's domain only"),
    ),
)
# Not for use: the agent says why each cannot change, and what to do.
_FIXED = ("--subnet", "--gateway", "--driver", "--parent", "--encrypted",
          "--isolate-subnets")  # fmt: skip


def register(networks: VerbGroup) -> None:
    """Add the verb of this module."""
    changed = networks.verb("set", run_set, "change a network in place", SET_DESCRIPTION)
    changed.add_argument("name", metavar="NETWORK")
    for option, dest, metavar, summary in (
        ("--add-label", "add_labels", "KEY=VALUE", "label to add or replace"),
        ("--remove-label", "remove_labels", "KEY", "label to remove"),
        (
            "--ip-range",
            "ip_ranges",
            "CIDR",
            "allocate only from this part of its subnet from now on; the subnet itself: from all",
        ),
    ):
        changed.add_argument(
            option,
            dest=dest,
            action="append",
            default=[],
            metavar=metavar,
            help=f"{summary}; may be repeated",
        )
    _add_flags(changed)
    changed.add_argument(
        "--default-deny",
        choices=("on", "off"),
        help="whether new connections that no policy allows are denied",
    )
    changed.add_argument(
        "--isolate-ports",
        choices=("on", "off"),
        help="whether its containers reach only those attached with --not-isolated",
    )
    changed.add_argument(
        "--evpn",
        choices=("on", "off"),
        help="whether hosts that speak BGP EVPN announce it to a fabric, and take what that has",
    )
    changed.add_argument("--vni", type=int, metavar="N", help="with --evpn: the fabric's")
    changed.add_argument(
        "--mtu", metavar="BYTES", help="MTU of its containers; auto: what the underlay carries"
    )
    for option, summary in (
        ("--rate", "limit both directions of each container, such as 10mbit; none: no limit"),
        ("--rate-in", "limit traffic to each container without a limit of its own"),
        ("--rate-out", "limit traffic from each container without a limit of its own"),
        ("--shared-rate", "limit what all its containers of one host send to other hosts together"),
    ):
        changed.add_argument(option, metavar="RATE", help=summary)
    add_control_options(changed, of="each container without a setting of its own")
    for option in _FIXED:
        dest = "fixed_" + option.strip("-").replace("-", "_")
        changed.add_argument(option, dest=dest, nargs="?", const="yes", help=argparse.SUPPRESS)


def _add_flags(changed: StrictParser) -> None:
    for dest, *options in _FLAGS:
        for (option, summary), value in zip(options, (True, False), strict=True):
            changed.add_argument(option, dest=dest, action="store_const", const=value, help=summary)


def run_set(args: Namespace) -> int:
    """Change a network."""
    body = _body(args)
    if not any(each not in ({}, [], None) for each in body.values()):
        raise UsageError("no change given", hint="overlayd network set --help lists the options")
    answer = ApiClient(args.paths).post(f"/v1/networks/{segment(args.name)}", body)
    if args.json:
        output.print_json(answer)
        return 0
    for change in answer["changed"]:
        output.print_result(
            f"{answer['name']}  {change['setting']}  {change['before']} → {change['after']}"
        )
    if args.evpn == "on" and args.vni is None:
        output.print_note(f"the fabric must know {answer['name']} by VNI {answer['vni']}")
    if not answer["changed"]:
        output.print_note(f"{answer['name']} is unchanged: it has these settings already")
    return 0


def _body(args: Namespace) -> JsonObject:
    body: JsonObject = {
        "add_labels": pairs(args.add_labels, "add_labels"),
        "remove_labels": args.remove_labels,
        "ip_ranges": args.ip_ranges,
        "fixed": [
            option.strip("-").replace("-", "_")
            for option in _FIXED
            if getattr(args, "fixed_" + option.strip("-").replace("-", "_")) is not None
        ],
    }
    for field in ("internal", "port_security", "any_name"):
        if getattr(args, field) is not None:
            body[field] = getattr(args, field)
    if args.default_deny is not None:
        body["default_deny"] = args.default_deny == "on"
    if args.isolate_ports is not None:
        body["isolate_ports"] = args.isolate_ports == "on"
    if args.evpn is not None:
        body["evpn"] = args.evpn == "on"
    if args.vni is not None:
        body["vni"] = args.vni
    if args.mtu is not None:
        body["mtu"] = _mtu(args.mtu)
    for field, text in (("rate_in", args.rate_in), ("rate_out", args.rate_out)):
        option, chosen = (field, text) if text is not None else ("rate", args.rate)
        if chosen is not None:
            body[field] = rates.parse(chosen, option)
    if args.shared_rate is not None:
        body["shared_rate"] = rates.parse(args.shared_rate, "shared_rate")
    return body | control_fields(args)


def _mtu(text: str) -> int:
    if text == AUTOMATIC:
        return 0
    if not (text.isascii() and text.isdecimal()) or int(text[:9]) < 1:
        raise UsageError(
            f"--mtu: {text!r} is not a number of bytes",
            hint=f"Such as 1400, or {AUTOMATIC} for what the underlay carries",
        )
    return int(text)
