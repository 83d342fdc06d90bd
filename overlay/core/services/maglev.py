"""Consistent hashing: which backend takes the connections of which hash value.

Follows Maglev (Eisenbud et al., NSDI 2016, section 3.4): each backend prefers the slots of a table
in an order of its own, and they take turns. So they get nearly equal shares, and when one comes or
goes, few slots of the others change. A backend of twice the weight takes twice the turns.

A backend that rests (gets no new connections for now) takes its turns as before, by its weight, and
then the others take turns for its slots. So none of the slots that these have by their own turns
change as it begins to rest, or ends. A slot that one of several left may go from one of the others
to another as one more begins, or ends. One that rests because its weight was set to 0 takes turns
as one of weight 1: if it had more, slots of others change, as with any new weight.

Owns: the slots of a table. Does not: know the hash function that chooses a slot, which is the
kernel's.
"""

from __future__ import annotations

import functools
import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from overlay import limits
from overlay.core.services.values import Backend, VirtualPort
from overlay.model import NodeId

_DIGEST_SIZE: Final = 16
_REMEMBERED: Final = 8  # sets of backends: several ports, and both data planes, ask for the same
_SLOTS_PER_TURN: Final = 10  # with fewer, a slot more or less is more than a tenth of a share


def sharing_at(port: VirtualPort, node: NodeId) -> tuple[Backend, ...]:
    """Return the backends that share the slots of a host's clients, also those that rest."""
    sharing = tuple(each for each in port.backends if len(each.ip) == len(port.ip))
    if port.local_first and any(not each.is_resting for each in sharing if each.node == node):
        return tuple(each for each in sharing if each.node == node)
    return sharing


def backends_at(port: VirtualPort, node: NodeId) -> tuple[Backend, ...]:
    """Return the backends that take the new connections of a host's clients."""
    return tuple(each for each in sharing_at(port, node) if not each.is_resting)


def has_backends(port: VirtualPort) -> bool:
    """Return whether any backend takes new connections, on whatever host."""
    return any(not each.is_resting and len(each.ip) == len(port.ip) for each in port.backends)


def table_size(backends: Sequence[Backend]) -> int:
    """Return the number of slots: a prime, so that any step from slot to slot reaches all.

    Whether a backend rests makes no difference.
    """
    weights = [each.weight for each in backends] or [1]
    few = sum(weights) <= min(weights) * limits.SERVICE_SLOTS_SMALL // _SLOTS_PER_TURN
    return limits.SERVICE_SLOTS_SMALL if few else limits.SERVICE_SLOTS_LARGE


def slots_of(backends: Sequence[Backend], size: int | None = None) -> tuple[Backend, ...]:
    """Return the backend of each slot; nothing without backends that take connections.

    Equal backends in any order give equal slots, on every host.
    """
    if all(each.is_resting for each in backends):
        return ()
    ordered = tuple(sorted(set(backends), key=lambda each: (each.ip, each.port)))
    return _slots(ordered, size or table_size(ordered))


@functools.lru_cache(maxsize=_REMEMBERED)
def _slots(ordered: tuple[Backend, ...], count: int) -> tuple[Backend, ...]:
    taken: list[Backend | None] = [None] * count
    _fill(taken, ordered)
    taken = [each if each is not None and not each.is_resting else None for each in taken]
    _fill(taken, [each for each in ordered if not each.is_resting])
    return tuple(each for each in taken if each is not None)


def _fill(taken: list[Backend | None], backends: Sequence[Backend]) -> None:
    """Have backends take the slots that nobody has, in turns; each of theirs was one already."""
    preferences = [_preferences(each, len(taken)) for each in backends]
    turns_had = Counter(taken)
    turns = _turns([each.weight for each in backends])
    free = taken.count(None)
    while free:
        chosen = next(turns)
        backend = backends[chosen]
        if turns_had[backend]:
            turns_had[backend] -= 1
        else:
            slot = next(slot for slot in preferences[chosen] if taken[slot] is None)
            taken[slot] = backend
            free -= 1


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
