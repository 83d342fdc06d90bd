"""Consistent hashing: which backend takes the connections of which hash value.

Follows Maglev (Eisenbud et al., NSDI 2016, section 3.4): each backend prefers the slots of a table
in an order of its own, and they take turns. So they get nearly equal shares, and when one comes or
goes, few slots of the others change. A backend of twice the weight takes twice the turns.

Owns: the slots of a table. Does not: know the hash function that chooses a slot, which is the
kernel's.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterator, Sequence
from typing import Final

from overlay import limits
from overlay.core.services.values import Backend, VirtualPort
from overlay.model import NodeId

_DIGEST_SIZE: Final = 16
_REMEMBERED: Final = 8  # sets of backends: several ports, and both data planes, ask for the same
_SLOTS_PER_TURN: Final = 10  # with fewer, a slot more or less is more than a tenth of a share


def backends_at(port: VirtualPort, node: NodeId) -> tuple[Backend, ...]:
    """Return the backends that take the new connections of a host's clients."""
    usable = tuple(
        each for each in port.backends if each.weight > 0 and len(each.ip) == len(port.ip)
    )
    if port.local_first:
        return tuple(each for each in usable if each.node == node) or usable
    return usable


def has_backends(port: VirtualPort) -> bool:
    """Return whether any backend takes new connections, on whatever host."""
    return any(each.weight > 0 and len(each.ip) == len(port.ip) for each in port.backends)


def table_size(backends: Sequence[Backend]) -> int:
    """Return the number of slots: a prime, so that any step from slot to slot reaches all."""
    weights = [each.weight for each in backends] or [1]
    few = sum(weights) <= min(weights) * limits.SERVICE_SLOTS_SMALL // _SLOTS_PER_TURN
    return limits.SERVICE_SLOTS_SMALL if few else limits.SERVICE_SLOTS_LARGE


def slots_of(backends: Sequence[Backend], size: int | None = None) -> tuple[Backend, ...]:
    """Return the backend of each slot; nothing without backends.

    Equal backends in any order give equal slots, on every host.
    """
    ordered = tuple(sorted(set(backends), key=lambda each: (each.ip, each.port)))
    return _slots(ordered, size or table_size(ordered)) if ordered else ()


@functools.lru_cache(maxsize=_REMEMBERED)
def _slots(ordered: tuple[Backend, ...], count: int) -> tuple[Backend, ...]:
    preferences = [_preferences(each, count) for each in ordered]
    taken: list[Backend | None] = [None] * count
    turns = _turns([each.weight for each in ordered])
    for _ in range(count):
        chosen = next(turns)
        slot = next(slot for slot in preferences[chosen] if taken[slot] is None)
        taken[slot] = ordered[chosen]
    return tuple(each for each in taken if each is not None)


def _turns(weights: Sequence[int]) -> Iterator[int]:
    """Yield whose turn it is, without end: in each round, those whose weight has added up."""
    most = max(weights)
    saved = [0] * len(weights)
    while True:
        for at, weight in enumerate(weights):
            saved[at] += weight
            if saved[at] >= most:
                saved[at] -= most
                yield at


def _preferences(backend: Backend, count: int) -> Iterator[int]:
    """Yield all slots in the order in which a backend prefers them."""
    place = backend.ip + backend.port.to_bytes(2, "big")
    digest = hashlib.blake2s(place, digest_size=_DIGEST_SIZE).digest()
    half = _DIGEST_SIZE // 2
    offset = int.from_bytes(digest[:half], "big") % count
    step = int.from_bytes(digest[half:], "big") % (count - 1) + 1
    return ((offset + turn * step) % count for turn in range(count))
