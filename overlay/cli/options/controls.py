"""Options of `attach` and `network set` for the controls of ports."""

from __future__ import annotations

from overlay import limits
from overlay.errors import UsageError

TYPE_CHECKING = False  # typing itself takes a tenth of a command's time to import
if TYPE_CHECKING:
    from argparse import Namespace

    from overlay.client.api import JsonObject
    from overlay.strict_arguments import StrictParser

_NONE = "none"


def add_control_options(parser: StrictParser, *, of: str) -> None:
    """Add the options; `of` is what they limit."""
    parser.add_argument(
        "--storm",
        metavar="N",
        help=f"let {of} send at most N broadcast and multicast frames a second; none: any number",
    )
    parser.add_argument(
        "--allow-non-ip",
        metavar="ETHERTYPE,...",
        nargs="?",
        const="all",
        help=f"let {of} send frames that are neither IP nor ARP: those of these types, such as "
        "0x88f7,llc, or all; none: only IP and ARP",
    )
    parser.add_argument(
        "--priority",
        metavar="N",
        help=f"give packets of {of} a priority: 0 to 7, as DSCP; trust: what they ask for; none",
    )


def control_fields(args: Namespace) -> JsonObject:
    """Return the API's fields for those options. Raises UsageError."""
    found: JsonObject = {}
    if args.storm is not None:
        found["storm"] = _storm(args.storm)
    if args.allow_non_ip is not None:
        found["allow_non_ip"] = args.allow_non_ip
    if args.priority is not None:
        found["priority"] = args.priority
    return found


def _storm(text: str) -> int:
    if text.lower() == _NONE:
        return 0
    low, high = limits.STORM_MIN, limits.STORM_MAX
    number = int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0
    if not low <= number <= high:
        raise UsageError(
            f"{text!r} is not a number of frames a second",
            hint=f"Use {low} to {high}, such as 200; or {_NONE} for no limit",
            field="storm",
        )
    return number
