"""Change a network while containers are on it: what may change, and to what.

Owns: which settings are valid for a network. Does not: write records (`service`), or carry a
change out: all that read the network in effect follow it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from overlay import limits
from overlay.agent.isolation.drivers import require_bridged
from overlay.agent.networks import exportable
from overlay.agent.networks.subnets import SubnetSpec, parse_range, subnet_of
from overlay.core.dataplane.controls.shared_rate import require_sharing
from overlay.core.dataplane.network_drivers import driver_of, has_sandbox
from overlay.core.declared.label_numbers import mtu_bounds
from overlay.core.declared.network_options import (
    MTU,
    OPTION_LABELS,
    SHARED_RATE,
    with_options,
)
from overlay.errors import ConflictError, UsageError
from overlay.model import (
    ANY_NAME_LABEL,
    DEFAULT_DENY_LABEL,
    EVPN_LABEL,
    ISOLATE_PORTS_LABEL,
    LABEL_PREFIX,
    PORT_SECURITY_OFF_LABEL,
    Network,
    Subnet,
)

_FIXED_WHY = {
    "subnet": "its containers have addresses of the subnets that it has",
    "gateway": "its containers have default routes to the gateways that it has",
    "vni": "all hosts carry its frames under the VNI that it has",
    "driver": "the interfaces of its containers are of the driver that it has",
    "parent": "the interfaces of its containers are on the parent that it has",
    "isolate_subnets": "its containers have routes between its subnets, or none",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingsSpec:
    """A change of a network's settings; None leaves one as it is.

    `ip_ranges`: the range of each subnet that is named, empty for the whole subnet. `options`: MTU,
    rates and controls, of which 0 or an empty text is none. `labels` replaces all labels that are
    not overlayd's own.
    """

    labels: Mapping[str, str] | None = None
    internal: bool | None = None
    port_security: bool | None = None
    any_name: bool | None = None
    default_deny: bool | None = None
    isolate_ports: bool | None = None
    evpn: bool | None = None
    ip_ranges: Mapping[str, str] = field(default_factory=dict)
    options: Mapping[str, int | str] = field(default_factory=dict)
    owner: str | None = None


def require_changeable(network: str, field_name: str) -> None:
    """Raise ConflictError for a setting that cannot change."""
    why = _FIXED_WHY.get(field_name)
    if why is not None:
        raise ConflictError(
            f"the {field_name.replace('_', ' ')} of network {network} cannot change",
            why=why,
            hint="Create another network with it, attach the containers there (a container may be "
            "on both), and remove this one: overlayd network create NEW",
        )
    if field_name == "encrypted":
        raise ConflictError(
            f"encryption of network {network} has a command of its own",
            why="hosts switch one after the other, so that no frame is lost",
            hint=f"overlayd encryption on {network}, or off",
        )


def changed(network: Network, spec: SettingsSpec) -> Network:
    """Return a network with other settings.

    Raises UsageError or ConflictError for those that it cannot have.
    """
    _require_options(network, spec.options)
    if spec.default_deny:
        require_policed(network.name, driver_of(network))
    if spec.isolate_ports:
        require_bridged(network.name, driver_of(network), "isolate ports")
    if spec.evpn:
        exportable.require_exportable(network)
    labels = network.labels
    if spec.labels is not None:
        own = [pair for pair in labels if pair[0].startswith(LABEL_PREFIX)]
        labels = (*own, *spec.labels.items())
        if len(labels) > limits.LABEL_COUNT_MAX:
            raise UsageError(
                f"there are {len(labels)} labels; {limits.LABEL_COUNT_MAX} is the limit",
                why="what overlayd keeps as labels, such as the driver or the MTU, is among them",
                hint="Remove one of the labels",
                field="labels",
            )
    for wanted, label in (
        (None if spec.port_security is None else not spec.port_security, PORT_SECURITY_OFF_LABEL),
        (spec.any_name, ANY_NAME_LABEL),
        (spec.default_deny, DEFAULT_DENY_LABEL),
        (spec.isolate_ports, ISOLATE_PORTS_LABEL),
        (spec.evpn, EVPN_LABEL),
    ):
        if wanted is not None:
            labels = (*(pair for pair in labels if pair != label), *([label] if wanted else []))
    return replace(
        network,
        internal=network.internal if spec.internal is None else spec.internal,
        labels=tuple(sorted(with_options(labels, spec.options, spec.owner))),
        subnets=_with_ranges(network, spec.ip_ranges),
    )


def _require_options(network: Network, options: Mapping[str, int | str]) -> None:
    given = [option for option in OPTION_LABELS if options.get(option)]
    if given and not has_sandbox(network):
        raise UsageError(
            f"{given[0]} is not supported by driver {driver_of(network)}",
            why="its containers are on the interface of a host, whose MTU and queues overlayd "
            "leaves alone",
            hint="Leave it out",
            field=given[0],
        )
    if options.get(SHARED_RATE):
        require_sharing(driver_of(network))
    mtu = int(options.get(MTU) or 0)
    has_ipv6 = any(len(subnet.base) == 16 for subnet in network.subnets)
    least = mtu_bounds(has_ipv6=has_ipv6).low
    if mtu and mtu < least:
        raise UsageError(
            f"an MTU of {mtu} bytes is too small for network {network.name}",
            why="IPv6 needs 1280 (RFC 8200)"
            if has_ipv6
            else "every host must accept 576 (RFC 791)",
            hint=f"Use {least} or more, or auto for what the underlay carries (0 in the API)",
            field=MTU,
        )


def require_policed(name: str, driver: str) -> None:
    """Raise ConflictError for a network whose containers' connections overlayd does not see."""
    require_bridged(name, driver, "have policies")


def _with_ranges(network: Network, ranges: Mapping[str, str]) -> tuple[Subnet, ...]:
    found = {str(subnet): subnet for subnet in network.subnets}
    for text, ip_range in ranges.items():
        name = str(parse_range(text))
        if name not in found:
            raise UsageError(
                f"network {network.name} has no subnet {text}",
                why=f"it has {' '.join(found)}",
                hint="Give a range within one of them",
                field="ip_range",
            )
        subnet = found[name]
        block = subnet.block_length or None
        read = subnet_of(SubnetSpec(name, ip_range=ip_range or None, block_length=block))
        found[name] = replace(subnet, ip_range=read.ip_range)
    return tuple(found.values())


def subnet_of_range(network: Network, text: str) -> str:
    """Return the subnet of a network that a range is within; raises UsageError if none is."""
    wanted = parse_range(text)
    for subnet in network.subnets:
        whole = subnet.network
        if whole.version == wanted.version and whole.overlaps(wanted):
            return str(subnet)
    raise UsageError(
        f"the range {text} is not within network {network.name}",
        why=f"its subnets are {' '.join(str(subnet) for subnet in network.subnets)}",
        hint="Give a part of one of them",
        field="ip_range",
    )
