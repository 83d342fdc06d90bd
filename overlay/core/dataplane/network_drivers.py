"""Network drivers: what carries the frames of a network's containers.

`overlay`: a sandbox with bridges and VTEPs on each host. `bridge`: a sandbox with bridges only,
on the host that created the network. `macvlan` and `ipvlan` have no sandbox: a container's
interface is a device on an interface of the host, the *parent*, and so on its segment; the same
on every host, with addresses that are unique across hosts. Driver and parent are reserved labels
of the network. Owns: those labels, and the differences between the drivers.
"""

from __future__ import annotations

from typing import Final

from overlay.model import LABEL_PREFIX, Network

OVERLAY, BRIDGE, MACVLAN, IPVLAN = "overlay", "bridge", "macvlan", "ipvlan"
DRIVERS: Final = (OVERLAY, BRIDGE, MACVLAN, IPVLAN)
PARENT_DRIVERS: Final = (MACVLAN, IPVLAN)
_DRIVER: Final = LABEL_PREFIX + "driver"
_PARENT: Final = LABEL_PREFIX + "parent"


def driver_of(network: Network) -> str:
    """Return a network's driver."""
    return dict(network.labels).get(_DRIVER, OVERLAY)


def parent_interface_of(network: Network) -> str:
    """Return the parent interface; empty for a driver that needs none."""
    return dict(network.labels).get(_PARENT, "")


def is_supported(network: Network) -> bool:
    """Return whether this version supports a network's driver.

    It must have a parent exactly where one is needed: a record may come from a newer overlayd, or
    from a member that lies.
    """
    kind = driver_of(network)
    return kind in DRIVERS and bool(parent_interface_of(network)) == (kind in PARENT_DRIVERS)


def labels_of(driver: str, parent: str) -> tuple[tuple[str, str], ...]:
    """Return the labels for a driver and parent; none for an overlay."""
    if driver == OVERLAY:
        return ()
    pair = ((_DRIVER, driver),)
    return (*pair, (_PARENT, parent)) if parent else pair


def has_tunnel(network: Network) -> bool:
    """Return whether a network reaches other hosts by VXLAN."""
    return driver_of(network) == OVERLAY


def has_sandbox(network: Network) -> bool:
    """Return whether participants have bridges, gateway and DNS for it."""
    return driver_of(network) not in PARENT_DRIVERS
