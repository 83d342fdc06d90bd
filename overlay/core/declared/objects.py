"""The declared objects in force: which of several nodes' statements counts.

Any member may create, change and remove a declared object, each by a record in its own log, with a
version one above the highest that it knows. Of all records about one object the one with the
highest version is in force, and of equal versions that of the origin with the higher id. So two
members that write at once end in exactly one of the two states, and replicas with equal records
agree. Nodes that have left or were forgotten count: an object outlives the host that wrote it.
Only what a node wrote that was banned with the authority's warrant gives way to any other record:
otherwise a hostile member could hold an object for ever by the highest possible version.
Of a kind that each host says for itself (`OWN_KINDS`) every node has objects of its own.

Owns: that order, the next version, and which records their origin should delete.
Does not: know what objects mean.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple, TypeAlias

from overlay import limits
from overlay.core.declared.kinds import OWN_KINDS
from overlay.core.log.store import Store
from overlay.core.protocol.interfaces import Signer
from overlay.core.protocol.records import (
    CLUSTER_SCOPE,
    DeclaredObject,
    ForgottenNode,
    Key,
    declared_key,
    key_of,
)
from overlay.model import NodeId


class PlacedObject(NamedTuple):
    """A declared object and the node in whose log it is."""

    origin: NodeId
    value: DeclaredObject


_Place: TypeAlias = tuple[Key, NodeId | None]
"""An object, and whose it is; None: the cluster's."""


def _place(kind: int, key: Key, origin: NodeId) -> _Place:
    return key, origin if kind in OWN_KINDS else None


class DeclaredObjects:
    """The declared objects in one node's store."""

    def __init__(self, store: Store, signer: Signer) -> None:
        self._store = store
        self._banned = _BannedNodes(store, signer)
        self._number = -1
        self._by_key: dict[_Place, list[PlacedObject]] = {}

    def in_force(self, kind: int, name: str) -> PlacedObject | None:
        """Return the record in force about an object, also one that removes it; or None.

        Of what each host says for itself, it is this node's own.
        """
        found = self._current().get(_place(kind, declared_key(kind, name), self._store.self_id))
        return None if found is None else found[0]

    def existing(self, kind: int) -> list[PlacedObject]:
        """Return the objects of a kind that exist, by name."""
        found = (records[0] for records in self._current().values())
        return sorted(
            (each for each in found if each.value.kind == kind and each.value.body),
            key=lambda each: (each.value.name.lower(), each.value.name, each.origin),
        )

    def next_version(self, kind: int, name: str) -> int | None:
        """Return the version that overrides all others; None if there is no higher one."""
        found = self.in_force(kind, name)
        if found is None or found.origin in self._banned.among([found.origin]):
            return 1
        version = found.value.version + 1
        return version if version <= limits.DECLARED_VERSION_MAX else None

    def change_number(self) -> int:
        """Return a number that grows with each change of what may be in force."""
        kinds = ("declared", "forgotten")
        return sum(self._store.change_count(CLUSTER_SCOPE, kind) for kind in kinds)

    def leftovers(self, *, all_present: bool) -> list[Key]:
        """Return the keys of own records that this node should delete.

        Those that another node's record overrides; and, if `all_present`, its removals of objects
        about which no other log says anything. `all_present` says that this node hears from every
        member that counts, and has for a while: a member that is cut off may hold an older record
        that this node never saw, which would be in force again.
        """
        own = self._store.self_id
        found = []
        for (key, _), records in self._current().items():
            if records[0].origin != own:
                found += [key for each in records[1:] if each.origin == own]
            elif all_present and len(records) == 1 and not records[0].value.body:
                found.append(key)
        return found

    def own_count(self) -> int:
        """Return how many records this node's log holds."""
        own = self._store.self_id
        return sum(1 for _ in self._store.values_of(own, CLUSTER_SCOPE, "declared"))

    def _current(self) -> dict[_Place, list[PlacedObject]]:
        """Return the records about each object, the one in force first."""
        if self.change_number() != self._number:
            found: dict[_Place, list[PlacedObject]] = {}
            for each in self._records():
                place = _place(each.value.kind, key_of(each.value), each.origin)
                found.setdefault(place, []).append(each)
            several = {
                each.origin for records in found.values() if len(records) > 1 for each in records
            }
            banned = self._banned.among(several)
            for records in found.values():
                records.sort(
                    key=lambda each: (each.origin not in banned, each.value.version, each.origin),
                    reverse=True,
                )
            self._number, self._by_key = self.change_number(), found
        return self._by_key

    def _records(self) -> Iterator[PlacedObject]:
        for origin, value in self._store.values(CLUSTER_SCOPE, "declared"):
            if isinstance(value, DeclaredObject):
                yield PlacedObject(origin, value)


class _BannedNodes:
    """The nodes that the authority's warrant excludes; each warrant is verified once."""

    def __init__(self, store: Store, signer: Signer) -> None:
        self._store = store
        self._signer = signer
        self._verdicts: dict[ForgottenNode, bool] = {}

    def among(self, nodes: Collection[NodeId]) -> set[NodeId]:
        """Return which of some nodes are banned."""
        if not nodes:
            return set()
        warranted = {
            value
            for _, value in self._store.values(CLUSTER_SCOPE, "forgotten")
            if isinstance(value, ForgottenNode) and value.warrant and value.node_id in nodes
        }
        return {record.node_id for record in warranted if self._is_valid(record)}

    def _is_valid(self, record: ForgottenNode) -> bool:
        if record not in self._verdicts:
            if len(self._verdicts) >= limits.FORGOTTEN_PER_NODE_MAX:
                self._verdicts.clear()
            self._verdicts[record] = self._signer.verify_warrant(record)
        return self._verdicts[record]
