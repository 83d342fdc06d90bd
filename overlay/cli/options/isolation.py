"""Options that keep a container apart from others of its network."""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself takes a tenth of a command's time to import
if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.client.api import JsonObject
    from overlay.strict_arguments import StrictParser


def add_isolation_options(parser: StrictParser) -> None:
    """Add the options of a new endpoint's port."""
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--isolated",
        action="store_const",
        const=True,
        help="let it reach the gateway and containers that are not isolated, but no isolated one",
    )
    either.add_argument(
        "--not-isolated",
        dest="isolated",
        action="store_const",
        const=False,
        help="let it reach all containers, on a network that isolates ports",
    )
    add_vlan_option(parser)


def add_vlan_option(parser: StrictParser) -> None:
    """Add `--vlan`."""
    parser.add_argument(
        "--vlan",
        metavar="VLANS",
        help="put its port into a VLAN of the network, untagged, such as 10; or into several as a "
        "trunk, tagged, such as 10,20-30. It reaches ports in the same VLAN only, and no gateway",
    )


def isolation_fields(args: Namespace) -> JsonObject:
    """Return the API's fields for those options."""
    return {
        **({} if args.isolated is None else {"isolated": args.isolated}),
        **({} if args.vlan is None else {"vlan": args.vlan}),
    }
