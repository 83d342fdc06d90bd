"""What a client's table holds, from its virtual ports.

Owns: the elements, and what need not be computed again. Does not: know rules (`client_table`).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from overlay import limits
from overlay.core.services.maglev import backends_at, sharing_at
from overlay.core.services.values import VirtualPort
from overlay.kernel.netlink.codec import Request
from overlay.kernel.nft import backend_choice as choice
from overlay.kernel.nft.backend_choice import Ring
from overlay.kernel.nft.messages import delete_elements, put_elements
from overlay.kernel.nft.table import Elements, Table
from overlay.kernel.services.client_table import ADDRESSES, PINGED, table_of
from overlay.model import Ip, NodeId

_RINGS: Final = tuple(ring.name for ring in choice.RINGS)
_FIXED: Final = (*ADDRESSES.values(), *PINGED.values())
_REMEMBERED: Final = 8  # pairs of sets of backends
_DIGEST_SIZE: Final = 16
_DUMPED_SIZE_MAX: Final = 128  # bytes of an element, as the kernel shows it


@dataclass(frozen=True, slots=True, eq=False)
class PortSlots:
    """The slots of a virtual port. Those of equal ports are the same object."""

    ring: Ring
    start: bytes  # of the key of each: nobody else has it
    packed: bytes  # what follows in each element (`backend_choice.packed_slots`)
    digest: bytes

    @classmethod
    def of(cls, ring: Ring, start: bytes, packed: bytes) -> PortSlots:
        """Return these slots of a ring's map."""
        whole = hashlib.blake2s(ring.name.encode("ascii"), digest_size=_DIGEST_SIZE)
        whole.update(start)
        whole.update(packed)
        return cls(ring, start, packed, whole.digest())

    def elements(self) -> set[bytes]:
        """Return the elements one by one."""
        return {self.start + rest for rest in _rests(self.packed, _rest_size(*self.place))}

    @property
    def count(self) -> int:
        """Return the number of elements."""
        return len(self.packed) // _rest_size(*self.place)

    @property
    def place(self) -> tuple[Ring, bytes]:
        """Return where it is: the map, and what the keys begin with."""
        return self.ring, self.start


@dataclass(frozen=True, slots=True, eq=False)
class TablePlan:
    """The elements of a table, with their digest. Compared by identity."""

    slots: frozenset[PortSlots]
    fixed: Elements  # of the sets that are no rings
    digest: bytes

    @classmethod
    def of(cls, rules: bytes, slots: frozenset[PortSlots], fixed: Elements) -> TablePlan:
        """Return the plan of these elements; the digest is of a table's rules as well."""
        whole = hashlib.blake2s(rules, digest_size=_DIGEST_SIZE)
        for each in sorted(each.digest for each in slots):
            whole.update(each)
        for name in _FIXED:
            whole.update(name.encode("ascii"))
            whole.update(b"".join(sorted(fixed[name])))
        return cls(slots, fixed, whole.digest())

    @property
    def is_empty(self) -> bool:
        """Return whether no table is needed."""
        return not any(self.fixed.values())

    @property
    def count(self) -> int:
        """Return the number of elements."""
        return sum(each.count for each in self.slots) + sum(map(len, self.fixed.values()))

    @property
    def dump_size_max(self) -> int:
        """Return how many bytes of a table are read: more than what all elements take."""
        return limits.CONTAINER_DUMP_SIZE_MAX + self.count * _DUMPED_SIZE_MAX

    def elements(self) -> Elements:
        """Return all elements by set."""
        return {**_by_ring(self.slots), **self.fixed}


def _by_ring(slots: Iterable[PortSlots]) -> Elements:
    found: dict[str, set[bytes]] = {name: set() for name in _RINGS}
    for each in slots:
        found[each.ring.name] |= each.elements()
    return _frozen(found)


def delta(before: TablePlan, after: TablePlan) -> tuple[Elements, Elements]:
    """Return what to put and what to delete; only ports that differ are read."""
    put = {name: set(after.fixed[name] - before.fixed[name]) for name in _FIXED}
    gone = {name: set(before.fixed[name] - after.fixed[name]) for name in _FIXED}
    new = {each.place: each for each in after.slots - before.slots}
    old = {each.place: each for each in before.slots - after.slots}
    for place in new.keys() | old.keys():
        ring, start = place
        now, then = (of[place].packed if place in of else b"" for of in (new, old))
        comes, goes = _differences(now, then, _rest_size(ring, start))
        put.setdefault(ring.name, set()).update(start + rest for rest in comes)
        gone.setdefault(ring.name, set()).update(start + rest for rest in goes)
    return _frozen(put), _frozen(gone)


@functools.lru_cache(maxsize=_REMEMBERED)
def _differences(
    now: bytes, then: bytes, rest_size: int
) -> tuple[frozenset[bytes], frozenset[bytes]]:
    """Return what packed slots have that others lack, and the reverse; many ports share both."""
    present, former = (frozenset(_rests(each, rest_size)) for each in (now, then))
    return present - former, former - present


def _rest_size(ring: Ring, start: bytes) -> int:
    return ring.key_size + ring.value_size - len(start)


def _rests(packed: bytes, size: int) -> Iterator[bytes]:
    return (packed[at : at + size] for at in range(0, len(packed), size))


def _frozen(elements: Mapping[str, set[bytes]]) -> Elements:
    return {name: frozenset(listed) for name, listed in elements.items()}


@functools.lru_cache(maxsize=2)
def change_requests(table: Table, before: TablePlan, after: TablePlan) -> tuple[Request, ...]:
    """Return the requests that change a table, made once for many containers."""
    put, gone = delta(before, after)
    return *delete_elements(table, gone), *put_elements(table, put)


@functools.lru_cache(maxsize=1)
def creation_requests(table: Table, plan: TablePlan) -> tuple[Request, ...]:
    """Return the requests that fill a table, made once for many containers."""
    return tuple(put_elements(table, plan.elements()))


class TablePlanner:
    """Plans the tables of a host's containers; a port that has not changed is computed once."""

    def __init__(self, node_id: NodeId, *, of_gate: bool = False) -> None:
        """`of_gate`: for the table of the host behind its gate."""
        self.table = table_of(node_id, of_gate=of_gate)
        self._rules = repr(self.table).encode()
        self._node_id = node_id
        self._slots: dict[VirtualPort, PortSlots] = {}

    def plan(self, ports: Sequence[VirtualPort]) -> TablePlan:
        """Return what the table of a client of these ports holds."""
        fixed: dict[str, set[bytes]] = {name: set() for name in _FIXED}
        pinged: dict[Ip, Ip] = {}
        for port in ports:
            fixed[ADDRESSES[len(port.ip)]].add(port.ip)
            backends = backends_at(port, self._node_id)
            if backends:
                first = min(each.ip for each in backends)
                pinged[port.ip] = min(first, pinged.get(port.ip, first))
        for ip, first in pinged.items():
            fixed[PINGED[len(ip)]].add(ip + first)
        slots = frozenset(map(self._slots_of, ports))
        return TablePlan.of(self._rules, slots, _frozen(fixed))

    def _slots_of(self, port: VirtualPort) -> PortSlots:
        if port not in self._slots:
            backends = sharing_at(port, self._node_id)
            ring = choice.ring_for(len(port.ip), backends, affinity=port.affinity)
            start = choice.key_start(port.ip, port.protocol, port.port)
            self._slots[port] = PortSlots.of(ring, start, choice.packed_slots(backends))
        return self._slots[port]

    def forget_others(self, ports: Collection[VirtualPort]) -> None:
        """Keep what was computed for these ports alone."""
        for port in self._slots.keys() - set(ports):
            del self._slots[port]
