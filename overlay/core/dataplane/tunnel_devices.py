"""Names of a sandbox's VXLAN devices: `vxlan0`, or `vxlanb0` beside it.

A device has one address family, so a network that is switched from IPv4 VTEPs to inner addresses,
or back, has two for a while, and keeps the second when the first is deleted: a device that is up
cannot be renamed before Linux 6.3. The next switch makes a first one again.

Owns: which of the two names is whose, by what the sandbox has. Does not: know why there are two.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from overlay.core.dataplane.link_state import Link, Vxlan
from overlay.core.dataplane.state import FdbRow, FloodRow, SandboxState
from overlay.model import Ip

DEVICE_BASES: Final = ("vxlan", "vxlanb")
"""The prefix of the devices' names; the segment's number follows."""


def other_base(base: str) -> str:
    """Return what the names of the other devices begin with."""
    return DEVICE_BASES[base == DEVICE_BASES[0]]


def sending_base(links: Mapping[str, Link], local: Ip, receiving: Ip | None) -> str:
    """Return what the names of the devices with the address `local` begin with, or should.

    They keep their names; where there are none yet, they get those that the devices with the
    address `receiving` do not have.
    """
    first, second = DEVICE_BASES
    if len(local) in _families(links, first):
        return first
    if len(local) in _families(links, second):
        return second
    taken = receiving is not None and len(receiving) in _families(links, first)
    return second if taken else first


def sending_device(state: SandboxState, segment: int) -> str:
    """Return the name of the device by which a segment's frames leave, in a planned state."""
    rows = {row.link for row in state.rows if isinstance(row, FdbRow | FloodRow)}
    names = [f"{base}{segment}" for base in DEVICE_BASES]
    there = [name for name in names if name in state.links]
    return next((name for name in there if name in rows), there[0] if there else names[0])


def _families(links: Mapping[str, Link], base: str) -> set[int]:
    """Return the sizes of the local addresses of the devices whose names begin so."""
    return {
        len(link.local)
        for name, link in links.items()
        if isinstance(link, Vxlan) and name.removeprefix(base).isdigit()
    }
