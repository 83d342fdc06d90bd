"""The rate that a network's containers on one host share for what they send to other hosts.

It is a label of the network, and holds on each host by itself. Within it, containers with a higher
priority are served first (`priority`). The queue is at the VXLAN device, so what shares a rate
passes that, and not the native path.

Owns: that label and its rows. Does not: know the queue's classes (`kernel.controls.shared_rate`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from overlay.core.dataplane.network_drivers import CAPABILITIES, has_tunnel
from overlay.core.dataplane.state import SharedRateRow
from overlay.core.declared.label_numbers import RATE, number_in
from overlay.errors import UsageError
from overlay.model import LABEL_PREFIX, Network

SHARED_RATE_LABEL: Final = LABEL_PREFIX + "shared-rate"
_BYTE: Final = 8  # the kernel counts bytes


def shared_rate_of(network: Network) -> int:
    """Return the rate in bits per second; 0 if the containers share none."""
    if not network.labels or not has_tunnel(network):
        return 0
    return number_in(dict(network.labels), SHARED_RATE_LABEL, RATE)


def shared_rate_rows(network: Network, devices: Iterator[str]) -> Iterator[SharedRateRow]:
    """Return the rows of the VXLAN devices that send."""
    bits = shared_rate_of(network)
    if bits:
        yield from (SharedRateRow(device, bits - bits % _BYTE) for device in devices)


def require_sharing(driver: str) -> None:
    """Raise UsageError for a driver whose frames leave the host past overlayd's devices, if any."""
    if not CAPABILITIES[driver].has_tunnel:
        raise UsageError(
            f"shared_rate is not supported by driver {driver}",
            why="what its containers send to other hosts passes no VXLAN device",
            hint="Networks of the driver overlay have it",
            field="shared_rate",
        )
