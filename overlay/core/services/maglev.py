"""Consistent hashing: which backend takes the connections of which hash value.

Follows Maglev (Eisenbud et al., NSDI 2016, section 3.4): each backend prefers the slots of a table
in an order of its own, and they take turns. So they get nearly equal shares, and when one comes or
goes, few slots of the others change. A backend of twice the weight takes twice the turns.

A backend that gets no new connections for now, with weight 0, takes turns as one of weight 1, and
then the others take turns for its slots. So none of theirs change as it goes, or comes back.

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


def sharing_at(port: VirtualPort, node: NodeId) -> tuple[Backend, ...]:
    """Return the backends that share the slots of a host's clients, also those of weight 0."""
    sharing = tuple(each for each in port.backends if len(each.ip) == len(port.ip))
    if port.local_first and any(each.weight for each in sharing if each.node == node):
        return tuple(each for each in sharing if each.node == node)
    return sharing


def backends_at(port: VirtualPort, node: NodeId) -> tuple[Backend, ...]:
    """Return the backends that take the new connections of a host's clients."""
    return tuple(each for each in sharing_at(port, node) if each.weight > 0)


def has_backends(port: VirtualPort) -> bool:
    """Return whether any backend takes new connections, on whatever host."""
    return any(each.weight > 0 and len(each.ip) == len(port.ip) for each in port.backends)


def table_size(backends: Sequence[Backend]) -> int:
    """Return the number of slots: a prime, so that any step from slot to slot reaches all."""
    weights = [each.weight or 1 for each in backends] or [1]
    few = sum(weights) <= min(weights) * limits.SERVICE_SLOTS_SMALL // _SLOTS_PER_TURN
    return limits.SERVICE_SLOTS_SMALL if few else limits.SERVICE_SLOTS_LARGE


def slots_of(backends: Sequence[Backend], size: int | None = None) -> tuple[Backend, ...]:
    """Return the backend of each slot; nothing without backends that take connections.

    Equal backends in any order give equal slots, on every host.
    """
    if not any(each.weight for each in backends):
        return ()
    ordered = tuple(sorted(set(backends), key=lambda each: (each.ip, each.port)))
    return _slots(ordered, size or table_size(ordered))


@functools.lru_cache(maxsize=_REMEMBERED)
def _slots(ordered: tuple[Backend, ...], count: int) -> tuple[Backend, ...]:
    turns = _turns([each.weight or 1 for each in ordered])
    taken: list[Backend | None] = [None] * count
    _fill(taken, ordered, turns)
    taken = [each if each is not None and each.weight else None for each in taken]
    _fill(taken, ordered, (at for at in turns if ordered[at].weight))
    return tuple(each for each in taken if each is not None)


def _fill(taken: list[Backend | None], ordered: Sequence[Backend], turns: Iterator[int]) -> None:
    """Have backends take the slots that nobody has, as their turns come."""
    preferences = [_preferences(each, len(taken)) for each in ordered]
    for _ in range(taken.count(None)):
        chosen = next(turns)
        slot = next(slot for slot in preferences[chosen] if taken[slot] is None)
        taken[slot] = ordered[chosen]


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
