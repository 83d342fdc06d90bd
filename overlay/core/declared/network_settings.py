"""Settings of networks that any member may change: what overrides a creator's definition.

The definition of a network is a record of its creator. What may change while containers are on it
is declared on top of it, under the network's VNI and creator; all nodes derive the network in
effect from both, in one place (`core.view`).

Owns: which settings these are, and how they override a definition.
Does not: know which values are sensible; the writer checks (`agent.networks`).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, Final

from overlay import limits
from overlay.core.declared import bodies
from overlay.core.declared.kinds import SETTINGS_KIND
from overlay.core.declared.objects import DeclaredObjects
from overlay.model import LABEL_PREFIX, Ip, Network, NodeId, Subnet, ip_text

# Of overlayd's own labels, those that are settings. The others say what a network is made of, and
# how far it is in a change of that: for these no override counts.
_SETTINGS: Final = (
    "mtu",
    "rate-in",
    "rate-out",
    "shared-rate",
    "storm",
    "non-ip",
    "priority",
    "owner",
    "port-security",
    "any-name",
    "default-deny",
    "isolate-ports",
    "evpn",
)

Labels = tuple[tuple[str, str], ...]
AddressRange = tuple[Ip, int]


@dataclass(frozen=True, slots=True)
class NetworkSettings:
    """Settings of a network in place of its definition's; None: as in the definition.

    `ip_ranges` are those of all subnets, in order.
    """

    internal: bool | None = None
    labels: Labels | None = None
    ip_ranges: tuple[AddressRange | None, ...] | None = None

    def applied_to(self, network: Network) -> Network:
        """Return the network in effect; what does not fit the definition has no effect."""
        return replace(
            network,
            internal=network.internal if self.internal is None else self.internal,
            labels=network.labels if self.labels is None else _labels(network, self.labels),
            subnets=_subnets(network.subnets, self.ip_ranges),
        )

    def body(self, title: str) -> bytes:
        """Return the body of the declared object; raises ConflictError if it is too large."""
        labels = None if self.labels is None else [list(pair) for pair in self.labels]
        ranges = self.ip_ranges
        texts = None if ranges is None else [_range_text(each) for each in ranges]
        return bodies.encode([self.internal, labels, texts], title)


def settings_name(network: Network) -> str:
    """Return the name of the declared object with a network's settings."""
    return f"{network.vni}-{network.creator.hex()}"


def difference(definition: Network, wanted: Network) -> NetworkSettings:
    """Return the settings that make one network of the other."""
    labels, former = (
        tuple(pair for pair in network.labels if _is_setting(pair[0]))
        for network in (wanted, definition)
    )
    ranges, defined = (
        tuple(subnet.ip_range for subnet in network.subnets) for network in (wanted, definition)
    )
    return NetworkSettings(
        internal=None if wanted.internal == definition.internal else wanted.internal,
        labels=None if labels == former else labels,
        ip_ranges=None if ranges == defined else ranges,
    )


def in_effect(
    objects: DeclaredObjects | None, claims: Iterable[tuple[NodeId, Network]]
) -> list[tuple[NodeId, Network]]:
    """Return networks as they are in effect, with the nodes that defined them."""
    if objects is None:
        return list(claims)
    found = {each.value.name: each.value.body for each in objects.existing(SETTINGS_KIND)}
    return [
        (origin, _overridden(network, found.get(settings_name(network)) if found else None))
        for origin, network in claims
    ]


def _overridden(network: Network, body: bytes | None) -> Network:
    settings = None if body is None else bodies.decode(body, _settings)
    return network if settings is None else settings.applied_to(network)


def _settings(internal: Any, labels: Any, ranges: Any, *_: Any) -> NetworkSettings:
    pairs = None if labels is None else bodies.require(labels, list, 2 * limits.LABEL_COUNT_MAX)
    return NetworkSettings(
        None if internal is None else bodies.require(internal, bool),
        None if pairs is None else tuple(sorted(_label(*pair) for pair in pairs)),
        None
        if ranges is None
        else tuple(
            _range(bodies.require(text, str))
            for text in bodies.require(ranges, list, limits.SUBNET_COUNT_MAX)
        ),
    )


def _label(key: Any, value: Any) -> tuple[str, str]:
    return (
        bodies.require(key, str, limits.LABEL_SIZE_MAX),
        bodies.require(value, str, limits.LABEL_SIZE_MAX),
    )


def _range(text: str) -> AddressRange | None:
    if not text:
        return None
    found = ipaddress.ip_network(text)
    return Ip(found.network_address.packed), found.prefixlen


def _range_text(given: AddressRange | None) -> str:
    return "" if given is None else f"{ip_text(given[0])}/{given[1]}"


def _labels(network: Network, labels: Labels) -> Labels:
    own = [pair for pair in network.labels if not _is_setting(pair[0])]
    return tuple(sorted([*own, *(pair for pair in labels if _is_setting(pair[0]))]))


def _is_setting(label: str) -> bool:
    return not label.startswith(LABEL_PREFIX) or label.removeprefix(LABEL_PREFIX) in _SETTINGS


def _subnets(
    subnets: tuple[Subnet, ...], ranges: tuple[AddressRange | None, ...] | None
) -> tuple[Subnet, ...]:
    if ranges is None or len(ranges) != len(subnets):
        return subnets
    return tuple(
        replace(subnet, ip_range=found) if _fits(subnet, found) else subnet
        for subnet, found in zip(subnets, ranges, strict=True)
    )


def _fits(subnet: Subnet, found: AddressRange | None) -> bool:
    """Return whether a range is within a subnet, and no smaller than one host's block."""
    if found is None:
        return True
    base, length = found
    return base in subnet and subnet.prefix_length <= length <= (
        subnet.block_length or 8 * len(base)
    )
