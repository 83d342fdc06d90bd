"""The plugs of the cluster and the machines behind them, from the declared objects in force.

Records of nodes that have left or were forgotten count for nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import NamedTuple

from overlay.core.declared.kinds import PLUG_KIND
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.node import Node
from overlay.core.plug.records import Machine, MachinesSeen, Plug, PlugRecord, decode
from overlay.core.protocol.messages import MemberState
from overlay.model import Ip, NodeId, Vni


class PlacedPlug(NamedTuple):
    """A plug, and the host whose interface it is."""

    origin: NodeId
    plug: Plug


class PlacedMachine(NamedTuple):
    """A machine outside, and the host whose plug it was seen at."""

    origin: NodeId
    machine: Machine


class _Record(NamedTuple):
    origin: NodeId
    name: str
    record: PlugRecord | None  # None: what no agent writes


class PlugCatalog:
    """The plugs that exist, and the addresses outside, by network."""

    def __init__(self, objects: DeclaredObjects, node: Node, own: NodeId) -> None:
        self._objects = objects
        self._node = node
        self._own = own
        self._number = -1
        self._records: list[_Record] = []
        self._own_seen: dict[Vni, frozenset[Ip]] = {}

    def note_seen(self, vni: Vni, ips: Iterable[Ip]) -> None:
        """Note the addresses behind this host's own plug of a network, before they are records."""
        self._own_seen[vni] = frozenset(ips)

    def number(self) -> int:
        """Return a number that grows with each change of the records."""
        return self._objects.change_number()

    def plugs(self, vni: Vni | None = None) -> list[PlacedPlug]:
        """Return the plugs of a network, or all; in the order of their hosts' ids."""
        found = [
            PlacedPlug(each.origin, each.record)
            for each in self._read()
            if isinstance(each.record, Plug) and vni in (None, each.record.vni)
        ]
        return sorted(
            (each for each in found if not self._is_gone(each.origin)),
            key=lambda each: (each.plug.vni, each.origin),
        )

    def machines(self, vni: Vni) -> list[PlacedMachine]:
        """Return the machines that hosts have seen behind their plugs of a network."""
        return [
            PlacedMachine(each.origin, machine)
            for each in self._read()
            if isinstance(each.record, MachinesSeen)
            and each.record.vni == vni
            and not self._is_gone(each.origin)
            for machine in each.record.machines
        ]

    def outside_ips(self, vni: Vni) -> AbstractSet[Ip]:
        """Return the addresses that were seen behind plugs of a network."""
        own = self._own_seen.get(vni, frozenset())
        if not self._read():
            return own
        return own.union(each.machine.ip for each in self.machines(vni))

    def names_of(self, origin: NodeId) -> dict[str, PlugRecord | None]:
        """Return a node's records by the name of their object."""
        return {each.name: each.record for each in self._read() if each.origin == origin}

    def is_live(self, node_id: NodeId) -> bool:
        """Return whether a node's agent runs, as far as is known."""
        state = self._node.membership.state_of(node_id)
        return node_id == self._own or state in (MemberState.ALIVE, MemberState.SUSPECT)

    def _is_gone(self, node_id: NodeId) -> bool:
        left = self._node.membership.state_of(node_id) is MemberState.LEFT
        return left or self._node.is_forgotten(node_id)

    def _read(self) -> list[_Record]:
        if self._number != self.number():
            self._number = self.number()
            self._records = [
                _Record(each.origin, each.value.name, decode(each))
                for each in self._objects.existing(PLUG_KIND)
            ]
        return self._records
