"""Controls of ports: the labels that hold them, and the rows that they become.

A control is a reserved label of an endpoint, so it is replicated and stored like the others. The
same label of a network holds for its containers that have none of their own. Each is enforced at
the port, by the container's own host.

Owns: those labels and rows. Does not: know how the kernel enforces them (`kernel.controls`).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from overlay.core.dataplane.controls.ethertypes import ethertypes_text, stored_ethertypes
from overlay.core.dataplane.controls.priority import stored_priority
from overlay.core.dataplane.network_drivers import driver_of, has_sandbox
from overlay.core.dataplane.state import Row, StormRow
from overlay.core.declared.label_numbers import STORM, number_in
from overlay.errors import UsageError
from overlay.model import LABEL_PREFIX, Endpoint, Network, is_host

Labels = tuple[tuple[str, str], ...]

STORM_LABEL: Final = LABEL_PREFIX + "storm"
NON_IP_LABEL: Final = LABEL_PREFIX + "non-ip"
PRIORITY_LABEL: Final = LABEL_PREFIX + "priority"
_LABELS: Final = frozenset({STORM_LABEL, NON_IP_LABEL, PRIORITY_LABEL})


class PortControls(NamedTuple):
    """The limits and permissions of one port."""

    storm: int = 0  # broadcast and multicast frames a second; 0: any number
    allow_non_ip: tuple[int, ...] = ()  # EtherTypes beside IP and ARP
    priority: str = ""  # "0" to "7", `TRUST`, or none

    def shown(self) -> dict[str, int | str | None]:
        """Return the controls by the API's names; None for those that are not set."""
        return {
            "storm": self.storm or None,
            "allow_non_ip": ethertypes_text(self.allow_non_ip) or None,
            "priority": self.priority or None,
        }


class ControlChanges(NamedTuple):
    """Other controls for an endpoint; None keeps what it has."""

    storm: int | None = None  # 0 removes the limit
    allow_non_ip: tuple[int, ...] | None = None
    priority: str | None = None  # an empty text removes it


NO_CONTROLS: Final = PortControls()
NO_CHANGES: Final = ControlChanges()


def controls_of(labels: Labels) -> PortControls:
    """Return the controls in labels; what no agent writes counts for nothing."""
    if not labels:
        return NO_CONTROLS  # most endpoints: each pass reads the controls of all local ones
    found = dict(labels)
    return PortControls(
        number_in(found, STORM_LABEL, STORM),
        stored_ethertypes(found.get(NON_IP_LABEL, "")),
        stored_priority(found.get(PRIORITY_LABEL, "")),
    )


def controls_on(network: Network, endpoint: Endpoint) -> PortControls:
    """Return the controls of an endpoint: its own, else those of its network; a host has none."""
    if not (endpoint.labels or network.labels) or is_host(endpoint):
        return NO_CONTROLS
    own, common = controls_of(endpoint.labels), controls_of(network.labels)
    return PortControls(
        own.storm or common.storm,
        own.allow_non_ip or common.allow_non_ip,
        own.priority or common.priority,
    )


def has_priorities(network: Network, endpoints: Iterable[Endpoint]) -> bool:
    """Return whether one of a host's endpoints on a network has a priority."""
    return any(controls_on(network, each).priority for each in endpoints)


def with_controls(labels: Labels, changes: ControlChanges) -> Labels:
    """Return labels with other controls."""
    found = dict(labels)
    if changes.storm is not None:
        found[STORM_LABEL] = str(changes.storm) if changes.storm else ""
    if changes.allow_non_ip is not None:
        found[NON_IP_LABEL] = ethertypes_text(changes.allow_non_ip)
    if changes.priority is not None:
        found[PRIORITY_LABEL] = changes.priority
    return tuple(sorted(pair for pair in found.items() if pair[1] or pair[0] not in _LABELS))


def control_rows(port_name: str, controls: PortControls) -> Iterator[Row]:
    """Return the rows of a port's controls."""
    if controls.storm:
        yield StormRow(port_name, controls.storm)


def require_controllable(network: Network, changes: ControlChanges) -> None:
    """Raise UsageError for a control on a network whose frames pass no port of overlayd's."""
    given = [field for field, value in changes._asdict().items() if value]
    if given and not has_sandbox(network):
        raise UsageError(
            f"{given[0]} is not supported by driver {driver_of(network)}",
            why="the frames of its containers pass no bridge of overlayd's",
            hint="Networks of the drivers overlay and bridge have it",
            field=given[0],
        )
