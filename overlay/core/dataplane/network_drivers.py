"""Network drivers: what carries the frames of a network's containers.

`overlay`: a sandbox with bridges and VTEPs on each host. `bridge`: a sandbox with bridges only,
on the host that created the network. `macvlan` and `ipvlan` have no sandbox: a container's
interface is a device on an interface of the host, the *parent*, and so on its segment; the same
on every host, with addresses that are unique across hosts. Driver and parent are reserved labels
of the network.

Owns: those labels, and the table of what each driver has. A new driver is one line here and one
module in `agent.networks.drivers`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final, NamedTuple

from overlay import limits
from overlay.model import LABEL_PREFIX, Network

OVERLAY, BRIDGE, MACVLAN, IPVLAN = "overlay", "bridge", "macvlan", "ipvlan"
# The label of an overlay whose frames cross the underlay encrypted only. It is a driver of its own
# on the wire, because an agent that does not know a driver takes no part in its networks.
_ENCRYPTED: Final = "overlay-encrypted"
_DRIVER: Final = LABEL_PREFIX + "driver"
_PARENT: Final = LABEL_PREFIX + "parent"
_GOAL: Final = LABEL_PREFIX + "encryption"
_GOAL_VALUE: Final = re.compile(r"(on|off)-([1-9][0-9]{0,18})", re.ASCII)


class EncryptionGoal(NamedTuple):
    """The encryption that a network in use was last switched to, or is being switched to.

    `serial` is greater than those of all goals before.
    """

    encrypted: bool
    serial: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The capabilities and needs of networks of one driver."""

    has_sandbox: bool  # on each participating host: bridges, gateway and DNS server
    has_tunnel: bool  # to other hosts by VXLAN, so that it has a VNI
    needs_parent: bool  # an interface of the host that its containers are on


CAPABILITIES: Final = {
    OVERLAY: Capabilities(has_sandbox=True, has_tunnel=True, needs_parent=False),
    BRIDGE: Capabilities(has_sandbox=True, has_tunnel=False, needs_parent=False),
    MACVLAN: Capabilities(has_sandbox=False, has_tunnel=False, needs_parent=True),
    IPVLAN: Capabilities(has_sandbox=False, has_tunnel=False, needs_parent=True),
}
# A record of a newer overlayd may name another driver: nothing is attached to its network here.
_UNKNOWN: Final = CAPABILITIES[BRIDGE]


def driver_of(network: Network) -> str:
    """Return a network's driver."""
    found = dict(network.labels).get(_DRIVER, OVERLAY)
    return OVERLAY if found == _ENCRYPTED else found


def is_encrypted(network: Network) -> bool:
    """Return whether a network's frames may cross the underlay encrypted only."""
    return (_DRIVER, _ENCRYPTED) in network.labels


def encryption_goal(network: Network) -> EncryptionGoal | None:
    """Return what a network was last switched to; None if it is as it was created.

    A serial number that no record of a member's progress can have is no goal either.
    """
    text = dict(network.labels).get(_GOAL)
    found = None if text is None else _GOAL_VALUE.fullmatch(text)  # most were never switched
    if found is None or int(found[2]) > limits.ENCRYPTION_SERIAL_MAX:
        return None
    return EncryptionGoal(found[1] == "on", int(found[2]))


def is_wanted_encrypted(network: Network) -> bool:
    """Return whether a network is encrypted, or is being switched to that."""
    goal = encryption_goal(network)
    return is_encrypted(network) if goal is None else goal.encrypted


def with_goal(network: Network, goal: EncryptionGoal, *, encrypted: bool) -> Network:
    """Return a network's definition with a goal, and as encrypted or not.

    Where the two differ, the network is on its way there.
    """
    labels = {key: value for key, value in network.labels if key not in (_GOAL, _DRIVER)}
    labels[_GOAL] = f"{'on' if goal.encrypted else 'off'}-{goal.serial}"
    labels.update(labels_of(OVERLAY, "", encrypted=encrypted))
    return replace(network, labels=tuple(sorted(labels.items())))


def has_room_for_goal(network: Network) -> bool:
    """Return whether a network has labels to spare for a goal, of LABEL_COUNT_MAX."""
    longest = with_goal(network, EncryptionGoal(encrypted=True, serial=1), encrypted=True)
    return len(longest.labels) <= limits.LABEL_COUNT_MAX


def spans_hosts(network: Network) -> bool:
    """Return whether several hosts use a network; a bridge network is one host's."""
    return is_supported(network) and driver_of(network) != BRIDGE


def parent_interface_of(network: Network) -> str:
    """Return the parent interface; empty for a driver that needs none."""
    return dict(network.labels).get(_PARENT, "")


def is_supported(network: Network) -> bool:
    """Return whether this version supports a network's driver.

    It must have a parent exactly where one is needed: a record may come from a newer overlayd, or
    from a member that lies.
    """
    found = CAPABILITIES.get(driver_of(network))
    return found is not None and bool(parent_interface_of(network)) == found.needs_parent


def labels_of(driver: str, parent: str, *, encrypted: bool = False) -> tuple[tuple[str, str], ...]:
    """Return the labels for a driver and parent; none for an overlay that is not encrypted."""
    if driver == OVERLAY:
        return ((_DRIVER, _ENCRYPTED),) if encrypted else ()
    pair = ((_DRIVER, driver),)
    return (*pair, (_PARENT, parent)) if parent else pair


def capabilities_of(network: Network) -> Capabilities:
    """Return what a network's driver has and needs."""
    return CAPABILITIES.get(driver_of(network), _UNKNOWN)


def has_tunnel(network: Network) -> bool:
    """Return whether a network reaches other hosts by VXLAN."""
    return capabilities_of(network).has_tunnel


def has_sandbox(network: Network) -> bool:
    """Return whether participants have bridges, gateway and DNS for it."""
    return capabilities_of(network).has_sandbox
