"""The kinds of network: what carries the frames of its containers.

`overlay` is the cluster's own: a sandbox with bridges and VTEPs on each host. `bridge` is a
sandbox with bridges alone, on the host that made it and nowhere else. `macvlan` and `ipvlan` have
no sandbox: a container's interface is a device on an interface of the host, the *parent*, and so
on the segment that this is on; the same on every host, with addresses that no two hosts give
twice. Kind and parent are labels of ours on the network. Owns: those labels, and what differs.
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
    """Return a network's kind."""
    return dict(network.labels).get(_DRIVER, OVERLAY)


def parent_interface_of(network: Network) -> str:
    """Return the interface that its containers' are on; empty for a kind that needs none."""
    return dict(network.labels).get(_PARENT, "")


def is_supported(network: Network) -> bool:
    """Say whether its kind is one of ours, with a parent just where one is needed: a record may
    come from a newer overlayd, or from a member that lies."""
    kind = driver_of(network)
    return kind in DRIVERS and bool(parent_interface_of(network)) == (kind in PARENT_DRIVERS)


def labels_of(driver: str, parent: str) -> tuple[tuple[str, str], ...]:
    """Return the labels that say so; none for an overlay."""
    if driver == OVERLAY:
        return ()
    pair = ((_DRIVER, driver),)
    return (*pair, (_PARENT, parent)) if parent else pair


def has_tunnel(network: Network) -> bool:
    """Say whether it reaches other hosts by VXLAN."""
    return driver_of(network) == OVERLAY


def has_sandbox(network: Network) -> bool:
    """Say whether a host that takes part has bridges, gateway and DNS server for it."""
    return driver_of(network) not in PARENT_DRIVERS
