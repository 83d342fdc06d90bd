"""Options of a network that are reserved labels: MTU, limits of its containers, owner.

Owns: these labels. Does not: know driver and parent (`network_drivers`), or the rates of a single
container (`rate_limits`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from overlay.core.declared import label_numbers
from overlay.core.declared.label_numbers import Bounds, mtu_bounds, number_in
from overlay.model import LABEL_PREFIX, Network

Labels = tuple[tuple[str, str], ...]

MTU, RATE_IN, RATE_OUT, STORM = "mtu", "rate_in", "rate_out", "storm"
SHARED_RATE: Final = "shared_rate"
NON_IP, PRIORITY = "allow_non_ip", "priority"
OPTION_LABELS: Final[Mapping[str, str]] = {
    MTU: LABEL_PREFIX + "mtu",
    RATE_IN: LABEL_PREFIX + "rate-in",
    RATE_OUT: LABEL_PREFIX + "rate-out",
    SHARED_RATE: LABEL_PREFIX + "shared-rate",
    STORM: LABEL_PREFIX + "storm",
    NON_IP: LABEL_PREFIX + "non-ip",
    PRIORITY: LABEL_PREFIX + "priority",
}
TEXT_OPTIONS: Final = frozenset({NON_IP, PRIORITY})
_OWNER: Final = LABEL_PREFIX + "owner"


def option_of(network: Network, option: str) -> int:
    """Return a network's MTU in bytes or rate in bits per second; 0: none is set.

    What no agent writes counts for nothing.
    """
    return number_in(dict(network.labels), OPTION_LABELS[option], _bounds(network, option))


def _bounds(network: Network, option: str) -> Bounds:
    if option == MTU:
        return mtu_bounds(has_ipv6=any(len(subnet.base) == 16 for subnet in network.subnets))
    return label_numbers.STORM if option == STORM else label_numbers.RATE


def setting_of(network: Network, option: str) -> int | str | None:
    """Return an option's value as a number or text; None if it is not set."""
    if option in TEXT_OPTIONS:
        return dict(network.labels).get(OPTION_LABELS[option]) or None
    return option_of(network, option) or None


def owner_of(network: Network) -> str:
    """Return the owner of the file that declares a network, or an empty text."""
    return dict(network.labels).get(_OWNER, "")


def user_labels(network: Network) -> Labels:
    """Return the labels that are not overlayd's own."""
    return tuple(pair for pair in network.labels if not pair[0].startswith(LABEL_PREFIX))


def with_options(
    labels: Labels, values: Mapping[str, int | str], owner: str | None = None
) -> Labels:
    """Return labels with other options; with an owner if one is given.

    Of options, 0 and an empty text are none.
    """
    found = dict(labels)
    for option, value in values.items():
        found[OPTION_LABELS[option]] = str(value) if value else ""
    if owner is not None:
        found[_OWNER] = owner
    own = {_OWNER, *OPTION_LABELS.values()}
    return tuple(sorted(pair for pair in found.items() if pair[1] or pair[0] not in own))
