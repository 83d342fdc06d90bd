"""What a client's table holds, from its virtual ports.

Owns: the elements, and what need not be computed again. Does not: know rules (`client_table`).
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Final

from overlay.core.services.maglev import backends_at
from overlay.core.services.values import VirtualPort
from overlay.kernel.nft import backend_choice as choice
from overlay.kernel.nft.table import Elements, Table
from overlay.kernel.services.client_table import ADDRESSES, PINGED, table_of
from overlay.model import Ip, NodeId

_NAMES: Final = (
    *(ring.name for ring in choice.RINGS),
    *ADDRESSES.values(),
    *PINGED.values(),
)


@dataclass(frozen=True, slots=True, eq=False)
class TablePlan:
    """The elements of a table, and a digest of them. Two plans are the same object or differ."""

    elements: Elements
    digest: bytes

    @classmethod
    def of(cls, table: Table, elements: Elements) -> TablePlan:
        """Return the plan of these elements in a table, whose rules the digest is of as well."""
        whole = hashlib.blake2s(repr(table).encode(), digest_size=16)
        for name in _NAMES:
            whole.update(name.encode("ascii"))
            whole.update(b"".join(sorted(elements[name])))
        return cls(elements, whole.digest())

    @property
    def is_empty(self) -> bool:
        """Return whether no table is needed."""
        return not any(self.elements.values())


@functools.lru_cache(maxsize=2)
def delta(before: TablePlan, after: TablePlan) -> tuple[Elements, Elements]:
    """Return what to put and what to delete, computed once for many containers."""
    new, old = after.elements, before.elements
    put = {name: new[name] - old[name] for name in _NAMES}
    return put, {name: old[name] - new[name] for name in _NAMES}


class TablePlanner:
    """Plans the tables of a host's containers; a port that has not changed is computed once."""

    def __init__(self, node_id: NodeId) -> None:
        self.table = table_of(node_id)
        self._node_id = node_id
        self._slots: dict[VirtualPort, tuple[str, frozenset[bytes]]] = {}

    def plan(self, ports: Sequence[VirtualPort]) -> TablePlan:
        """Return what the table of a client of these ports holds."""
        found: dict[str, set[bytes]] = {name: set() for name in _NAMES}
        pinged: dict[Ip, Ip] = {}
        for port in ports:
            size, backends = len(port.ip), backends_at(port, self._node_id)
            name, slots = self._slots_of(port)
            found[name] |= slots
            found[ADDRESSES[size]].add(port.ip)
            if backends:
                first = min(each.ip for each in backends)
                pinged[port.ip] = min(first, pinged.get(port.ip, first))
        for ip, first in pinged.items():
            found[PINGED[len(ip)]].add(ip + first)
        return TablePlan.of(self.table, {name: frozenset(listed) for name, listed in found.items()})

    def _slots_of(self, port: VirtualPort) -> tuple[str, frozenset[bytes]]:
        if port not in self._slots:
            backends = backends_at(port, self._node_id)
            ring = choice.ring_for(len(port.ip), backends, affinity=port.affinity)
            listed = choice.slot_elements(port.ip, port.protocol, port.port, backends)
            self._slots[port] = ring.name, frozenset(listed)
        return self._slots[port]

    def forget_others(self, ports: Collection[VirtualPort]) -> None:
        """Keep what was computed for these ports alone."""
        for port in self._slots.keys() - set(ports):
            del self._slots[port]
