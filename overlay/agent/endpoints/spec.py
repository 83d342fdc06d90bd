"""The specs of an attach and a detach, and their comparison with an endpoint.

Owns: the specs, and the rules that need no record.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from overlay import limits
from overlay.core.dataplane.controls.port_controls import (
    NO_CHANGES,
    ControlChanges,
    with_controls,
)
from overlay.core.dataplane.port_security import (
    DHCP_SERVER_LABEL,
    ROUTER_LABEL,
    allowed_addresses,
    allowed_macs,
    labels_of_allowed,
)
from overlay.core.dataplane.published_port import PortPair
from overlay.core.dataplane.rate_limits import with_rates
from overlay.core.vlan.vlans import NO_VLANS, Vlans, label_of_vlans, vlans_of
from overlay.errors import UsageError
from overlay.model import (
    ISOLATED_LABEL,
    NOT_ISOLATED_LABEL,
    SHARED_NAME_LABEL,
    Endpoint,
    Ip,
    Mac,
    ip_text,
    isolation_of,
    mac_text,
    shares_name,
)


@dataclass(frozen=True, slots=True)
class EndpointOptions:
    """The requested options of an endpoint, on each network that it is attached to.

    Raises UsageError if the labels, with one for each rate and control among them, are too many.
    """

    name: str | None = None
    shared_name: bool = False  # with others that share theirs
    ips: tuple[Ip, ...] = ()  # at most one of each family
    mac: Mac | None = None
    ifname: str | None = None
    default_route: bool = True
    aliases: tuple[str, ...] = ()
    labels: tuple[tuple[str, str], ...] = ()
    allow_ips: tuple[Ip, ...] = ()  # that it may use beside its own
    allow_macs: tuple[Mac, ...] = ()
    allow_dhcp_server: bool = False
    allow_ra: bool = False
    isolated: bool | None = None  # None: as the network has it
    vlans: Vlans = NO_VLANS
    rates: tuple[int | None, int | None] = (None, None)  # in and out, bit/s; None: unchanged
    controls: ControlChanges = NO_CHANGES
    gateway_priority: int | None = None  # None: unchanged, and 0 for a new endpoint
    hands_off: bool | None = None  # None: unchanged, and False for a new endpoint
    keep: bool | None = None  # for a later container of its name; None as for hands_off
    # With those of rates, controls, what is allowed beside, a shared name, isolation and VLANs.
    all_labels: tuple[tuple[str, str], ...] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        switches = (
            (self.shared_name, SHARED_NAME_LABEL),
            (self.allow_dhcp_server, DHCP_SERVER_LABEL),
            (self.allow_ra, ROUTER_LABEL),
            (self.isolated is True, ISOLATED_LABEL),
            (self.isolated is False, NOT_ISOLATED_LABEL),
        )
        chosen = {label for is_on, label in switches if is_on}
        if self.vlans.is_any:
            chosen.add(label_of_vlans(self.vlans))
        labels = sorted(
            {*self.labels, *labels_of_allowed(self.allow_ips, self.allow_macs), *chosen}
        )
        wanted = labels_with_limits(tuple(labels), self.rates, self.controls)
        object.__setattr__(self, "all_labels", wanted)


@dataclass(frozen=True, slots=True)
class AttachSpec:
    """A container to attach, and its networks."""

    target: str  # as the user calls it: `runtimes.targets` has the grammar
    networks: tuple[str, ...]
    options: EndpointOptions = field(default_factory=EndpointOptions)
    wait: bool = True  # until the live hosts have confirmed that they reach it
    ports: tuple[PortPair, ...] = ()  # of this host, that map to it on its first network


@dataclass(frozen=True, slots=True)
class DetachSpec:
    """A container to detach, also one that is gone; from all its networks if none is named."""

    target: str
    networks: tuple[str, ...] = ()


def labels_with_limits(
    labels: tuple[tuple[str, str], ...],
    rates: tuple[int | None, int | None],
    controls: ControlChanges,
) -> tuple[tuple[str, str], ...]:
    """Return the labels with rates and controls; raises UsageError if they are too many."""
    found = with_controls(with_rates(labels, rates), controls)
    if len(found) > limits.LABEL_COUNT_MAX:
        raise UsageError(
            f"there are {len(found)} labels; {limits.LABEL_COUNT_MAX} is the limit",
            why="each rate, control, allowed address and allowed MAC is one, and so are port "
            "security that is off, a shared name, isolation, VLANs, and a DHCP server or router "
            "that is allowed",
            field="labels",
        )
    return found


def mismatch_text(options: EndpointOptions, endpoint: Endpoint, ifname: str) -> str:
    """Return what an attached endpoint does not have of the options; empty if it has all.

    Options that can be changed in place (rates, controls, gateway priority) are not compared.
    """
    asked = (
        ("address", set(options.ips) <= set(endpoint.ips), " ".join(map(ip_text, endpoint.ips))),
        ("MAC", options.mac in (None, endpoint.mac), mac_text(endpoint.mac)),
        ("interface", options.ifname in (None, ifname), ifname),
        ("name", options.name in (None, endpoint.name), endpoint.name),
        ("shared name", not options.shared_name or shares_name(endpoint), ""),
        ("aliases", set(options.aliases) <= set(endpoint.aliases), " ".join(endpoint.aliases)),
        (
            "allowed addresses",
            set(options.allow_ips) <= set(allowed_addresses(endpoint)),
            " ".join(map(ip_text, allowed_addresses(endpoint))),
        ),
        (
            "allowed MACs",
            set(options.allow_macs) <= set(allowed_macs(endpoint)),
            " ".join(map(mac_text, allowed_macs(endpoint))),
        ),
        (
            "leave to answer DHCP",
            not options.allow_dhcp_server or DHCP_SERVER_LABEL in endpoint.labels,
            "",
        ),
        (
            "leave to send router advertisements",
            not options.allow_ra or ROUTER_LABEL in endpoint.labels,
            "",
        ),
        (
            "isolation",
            options.isolated in (None, isolation_of(endpoint)),
            {True: "on", False: "off", None: "as its network has it"}[isolation_of(endpoint)],
        ),
        (
            "VLANs",
            not options.vlans.is_any or options.vlans == vlans_of(endpoint),
            str(vlans_of(endpoint)),
        ),
        ("labels", set(options.labels) <= set(endpoint.labels), _shown(endpoint.labels)),
    )
    return "; ".join(f"its {what}: {has or 'none'}" for what, met, has in asked if not met)


def _shown(labels: tuple[tuple[str, str], ...]) -> str:
    return " ".join(f"{key}={value}" for key, value in labels)
