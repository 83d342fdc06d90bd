"""The block of ports with which a gate masquerades, chosen from those that the host does not use.

The gate's rules have one range, so a block is one piece. It is kept as long as the gate stands,
since its connections have ports of it. A program that begins to listen there later loses nothing
but time: its packets take the gate, and back.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Final, NamedTuple

from overlay import limits
from overlay.core.gate.host_view import HostView

_STEP: Final = 1024
_ALL: Final = 65_536


class PortBlock(NamedTuple):
    """Ports from the first to the last, both included."""

    first: int
    last: int

    def __str__(self) -> str:
        """Return it as people read it."""
        return f"{self.first} to {self.last}"


USUAL_BLOCK: Final = PortBlock(16_384, 32_767)
"""The block of a host with Linux's own settings, and no program that listens there."""


def choose_block(host: HostView, used: Collection[int]) -> PortBlock | None:
    """Return the largest block without ports that are used, or that the host chooses from.

    It begins and ends at multiples of 1024. Of several, the highest: programs listen at low ports
    more often. Returns None if each is too small.
    """
    sizes = [
        (min(last + 1 - first, limits.GATE_PORTS_MAX), last) for first, last in _free(host, used)
    ]
    size, last = max(sizes, default=(0, 0))
    return PortBlock(last + 1 - size, last) if size >= limits.GATE_PORTS_MIN else None


def _free(host: HostView, used: Collection[int]) -> Iterator[PortBlock]:
    """Yield the ranges of whole steps that are free; privileged ports are not."""
    taken = {port // _STEP for port in used}
    begin = 0
    for first in range(_STEP, _ALL + 1, _STEP):
        last = first + _STEP - 1
        is_free = last < _ALL and first // _STEP not in taken and not host.chooses(first, last)
        if is_free:
            begin = begin or first
        elif begin:
            yield PortBlock(begin, first - 1)
            begin = 0


def block_obstacle(host: HostView, block: PortBlock | None) -> str:
    """Return why a host can't masquerade with a block's ports, or has none; empty if it can."""
    own = f"the host's own connections have ports {PortBlock(*host.own_ports)}"
    if block is None:
        return f"no {limits.GATE_PORTS_MIN} ports in one piece are free: {own}, and programs listen"
    return f"{own}, the gate's {block}" if host.chooses(*block) else ""
