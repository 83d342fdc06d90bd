"""A network to create, and whether one that exists is the same.

Owns: these values, and the errors about another network of the name. Does not: write records, or
know whether a definition is valid (`definition`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from overlay.agent.networks.subnets import SubnetSpec, matches
from overlay.core.dataplane import network_drivers
from overlay.errors import ConflictError
from overlay.model import (
    DEFAULT_DENY_LABEL,
    EVPN_LABEL,
    ISOLATE_PORTS_LABEL,
    Network,
    has_default_deny,
    is_exported,
    isolates_ports,
)


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A network to create."""

    name: str
    subnets: Sequence[SubnetSpec]
    vni: int | None = None
    internal: bool = False
    labels: tuple[tuple[str, str], ...] = ()
    force: bool = False
    isolate_subnets: bool = False
    driver: str = network_drivers.OVERLAY
    parent: str = ""
    ipv6: bool = False  # with a unique local prefix of its own
    encrypted: bool = False  # its frames cross the underlay encrypted only


def require_same(existing: Network, spec: NetworkSpec) -> None:
    """Raise ConflictError unless a network of this name is the one to create."""
    _require_same_case(existing, spec)
    _require_same_definition(existing, spec)
    _require_same_default(existing, spec)
    _require_same_isolation(existing, spec)


def _require_same_case(existing: Network, spec: NetworkSpec) -> None:
    if existing.name != spec.name:
        raise ConflictError(
            f"the name {spec.name!r} is taken by network {existing.name}",
            why="names of networks that differ by case alone are one name, as in DNS",
            hint="Choose another name, or use that network",
        )


def _require_same_definition(existing: Network, spec: NetworkSpec) -> None:
    has_ipv6 = any(len(subnet.base) == 16 for subnet in existing.subnets)
    count = len(existing.subnets) - spec.ipv6
    same = (
        (has_ipv6 or not spec.ipv6)
        and len(spec.subnets) in (0, count)
        and all(
            matches(subnet, asked)
            for asked, subnet in zip(spec.subnets, existing.subnets, strict=False)
        )
    )
    if spec.vni is not None and spec.vni != existing.vni:
        same = False
    exported = EVPN_LABEL in spec.labels
    options = (
        spec.internal, spec.isolate_subnets, spec.driver, spec.parent, spec.encrypted, exported
    )  # fmt: skip
    kind = network_drivers.driver_of(existing)
    parent = network_drivers.parent_interface_of(existing)
    encrypted = network_drivers.is_encrypted(existing)
    found = (
        existing.internal, existing.isolate_subnets, kind, parent, encrypted, is_exported(existing)
    )  # fmt: skip
    if not same or options != found:
        shown = " ".join(str(subnet) for subnet in existing.subnets)
        raise ConflictError(
            f"a different network {existing.name!r} exists already",
            why=f"existing: driver {f'{kind} on {parent}' if parent else kind}, {shown}, "
            f"VNI {existing.vni}{', internal' if existing.internal else ''}"
            f"{', isolated subnets' if existing.isolate_subnets else ''}"
            f"{', encrypted' if encrypted else ''}{', evpn' if found[-1] else ''}",
            hint="Choose another name, or remove it: overlayd network rm " + existing.name,
        )


def _require_same_default(existing: Network, spec: NetworkSpec) -> None:
    if has_default_deny(existing) != (DEFAULT_DENY_LABEL in spec.labels):
        denies = has_default_deny(existing)
        keep = "add --default-deny" if denies else "leave --default-deny out"
        raise ConflictError(
            f"a different network {existing.name!r} exists already",
            why=f"it {'denies' if denies else 'allows'} new connections by default",
            hint=f"To keep that, {keep}. To change it: overlayd network set {existing.name} "
            f"--default-deny {'off' if denies else 'on'}",
        )


def _require_same_isolation(existing: Network, spec: NetworkSpec) -> None:
    isolates = isolates_ports(existing)
    if isolates != (ISOLATE_PORTS_LABEL in spec.labels):
        keep = "add --isolate-ports" if isolates else "leave --isolate-ports out"
        raise ConflictError(
            f"a different network {existing.name!r} exists already",
            why=f"its ports are {'' if isolates else 'not '}isolated from each other",
            hint=f"To keep that, {keep}. To change it: overlayd network set {existing.name} "
            f"--isolate-ports {'off' if isolates else 'on'}",
        )
