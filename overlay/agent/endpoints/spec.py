"""What an attach asks for, on one network, and what of it can't be.

Owns: the wish, and those of its rules that need no record but the network's.
"""

from __future__ import annotations

from dataclasses import dataclass

from overlay import limits
from overlay.core.dataplane.network_drivers import IPVLAN, driver_of, has_sandbox
from overlay.core.dataplane.rate_limits import with_rates
from overlay.errors import UsageError
from overlay.model import Endpoint, Ip, Mac, Network, ip_text, mac_text


@dataclass(frozen=True, slots=True)
class AttachSpec:
    """What an attach asks for, on one network."""

    name: str | None = None
    ip: Ip | None = None
    mac: Mac | None = None
    ifname: str | None = None
    default_route: bool = True
    aliases: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    rates: tuple[int | None, int | None] = (None, None)  # in and out; None: as it is
    gateway_priority: int | None = None  # None: as it is, and 0 for a new one


def labels_with_rates(
    labels: tuple[tuple[str, str], ...], rates: tuple[int | None, int | None]
) -> tuple[tuple[str, str], ...]:
    """Return the labels with the limits among them; raises UsageError if these are too many."""
    found = with_rates(labels, rates)
    if len(found) > limits.LABEL_COUNT_MAX:
        raise UsageError(
            f"there are {len(found)} labels; {limits.LABEL_COUNT_MAX} is the limit",
            why="each limit of the rate is one, and so is port security that is off",
            field="labels",
        )
    return found


def mismatch_text(spec: AttachSpec, endpoint: Endpoint, ifname: str) -> str:
    """Return what is asked for that what is attached already does not have; empty if nothing.

    What can be changed in place (rates, the say in the default route) is not looked at.
    """
    asked = (
        ("address", spec.ip is None or spec.ip in endpoint.ips, ip_text(endpoint.ips[0])),
        ("MAC", spec.mac in (None, endpoint.mac), mac_text(endpoint.mac)),
        ("interface", spec.ifname in (None, ifname), ifname),
        ("name", spec.name in (None, endpoint.name), endpoint.name),
        ("aliases", set(spec.aliases) <= set(endpoint.aliases), " ".join(endpoint.aliases)),
        ("labels", set(spec.labels) <= set(endpoint.labels), _shown(endpoint.labels)),
    )
    return "; ".join(f"its {what}: {has or 'none'}" for what, met, has in asked if not met)


def _shown(labels: tuple[tuple[str, str], ...]) -> str:
    return " ".join(f"{key}={value}" for key, value in labels)


def require_supported(network: Network, spec: AttachSpec) -> None:
    """Raise UsageError for what an interface on one of the host's can't have."""
    kind = driver_of(network)
    if any(spec.rates) and not has_sandbox(network):
        raise UsageError(
            f"a rate does not go with a network of the kind {kind}",
            why="its containers' frames pass no queue of ours",
            hint="Networks of the kinds overlay and bridge have rates",
            field="rate_in" if spec.rates[0] else "rate_out",
        )
    if spec.mac is not None and kind == IPVLAN:
        raise UsageError(
            "a MAC does not go with a network of the kind ipvlan",
            why="its containers have the MAC of their parent",
            hint="Leave it out",
            field="mac",
        )
