"""Which addresses of a plugged network hosts will give out next.

Machines outside that have said nothing are asked for them before a container gets one. A subnet may
be far too large to ask for all of it, so it is the lowest free ones of each owner's space, as
containers get these, and the highest, as a host endpoint gets it.

Owns: that choice. Does not: ask, or know what is outside.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from itertools import islice, zip_longest

from overlay import limits
from overlay.core.dataplane.planning.segments import segment_of
from overlay.core.ipam.address_choice import dynamic_addresses, pick_last, reserved_addresses
from overlay.core.ipam.intervals import Intervals, Run
from overlay.core.ipam.ownership import Ownership
from overlay.core.ipam.subnet_numbers import ip_of
from overlay.model import Ip, NodeId, Subnet


def next_in_line(ownership: Ownership, taken: AbstractSet[Ip]) -> list[Ip]:
    """Return the free addresses of the first segment that come next, those of all owners by turns.

    `taken` are those of containers and of machines that are known.
    """
    network = ownership.network
    runs: dict[tuple[int, NodeId], list[Run]] = {}
    for piece in ownership.pieces():
        if segment_of(network, piece.subnet_index) == 0:
            owned = runs.setdefault((piece.subnet_index, piece.holding.owner), [])
            owned.append((piece.first, piece.last))
    lines = [
        _line(network.subnets[index], Intervals.of(owned), taken)
        for (index, _), owned in runs.items()
    ]
    ordered = (ip for rank in zip_longest(*lines) for ip in rank if ip is not None)
    return list(islice(dict.fromkeys(ordered), limits.PLUG_SWEEP_ADDRESSES_MAX))


def _line(subnet: Subnet, owned: Intervals, taken: AbstractSet[Ip]) -> list[Ip]:
    free = (owned & dynamic_addresses(subnet)) - reserved_addresses(subnet)
    rising = (ip_of(number, subnet) for run in free for number in range(run[0], run[1] + 1))
    lowest = islice((ip for ip in rising if ip not in taken), limits.PLUG_SWEEP_NEXT)
    highest = pick_last(subnet, owned, taken, ())
    return [*lowest, *([] if highest is None else [highest])]
