"""The forgotten nodes, and what members have stated about the space that these held."""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator

from overlay.core.ipam.intervals import Intervals
from overlay.core.ipam.subnet_numbers import number_of, subnet_run
from overlay.core.protocol.records import ForgottenNode, ReclaimStatement
from overlay.model import Network, NodeId, Subnet


class ReclaimStatements:
    """All reclaim statements, for lookups.

    A part of a statement protects what it names; only all parts of it are binding.
    """

    def __init__(self, statements: Iterable[tuple[NodeId, ReclaimStatement]]) -> None:
        self._records: dict[tuple[NodeId, NodeId], dict[int, ReclaimStatement]] = {}
        for origin, record in statements:
            self._records.setdefault((origin, record.node_id), {})[record.part] = record
        self._keepers: dict[int, list[tuple[NodeId, NodeId]]] | None = None
        self._kept: dict[tuple[NodeId, NodeId, int, Subnet], Intervals] = {}

    def __iter__(self) -> Iterator[tuple[NodeId, NodeId]]:
        return iter(self._records)

    def __contains__(self, statement: tuple[NodeId, NodeId]) -> bool:
        return statement in self._records

    def keepers(self, vni: int) -> list[tuple[NodeId, NodeId]]:
        """Return the statements, as (origin, forgotten node), that keep anything of a network.

        In order. There may be very many others, and very many networks.
        """
        if self._keepers is None:
            self._keepers = {}
            for statement, records in sorted(self._records.items(), key=lambda item: item[0]):
                for each in {run.vni for record in records.values() for run in record.kept}:
                    self._keepers.setdefault(each, []).append(statement)
        return self._keepers.get(vni, [])

    def complete(self, origin: NodeId, node_id: NodeId) -> bool:
        """Return whether all parts of `origin`'s statement are known."""
        records = self._records.get((origin, node_id))
        return records is not None and len(records) == next(iter(records.values())).parts

    def reclaiming_node(self, origin: NodeId, node_id: NodeId) -> NodeId | None:
        """Return the reclaiming node that `origin` voted for, if known."""
        records = self._records.get((origin, node_id))
        return None if records is None else next(iter(records.values())).reclaiming_node

    def live_reclaiming_node(
        self, origin: NodeId, node_id: NodeId, forgotten: Container[NodeId]
    ) -> NodeId | None:
        """Return the reclaiming node that `origin` voted for.

        If that one is forgotten too, the one that `origin` voted for as its reclaiming node.
        """
        passed: set[NodeId] = set()
        claimant = self.reclaiming_node(origin, node_id)
        while claimant is not None and claimant in forgotten:
            if claimant in passed:
                return None
            passed.add(claimant)
            claimant = self.reclaiming_node(origin, claimant)
        return claimant

    def kept(self, origin: NodeId, node_id: NodeId, network: Network, index: int) -> Intervals:
        """Return what `origin` keeps of `node_id`'s space, as far as known."""
        subnet = network.subnets[index]
        key = (origin, node_id, network.vni, subnet)
        if key not in self._kept:
            first, last = subnet_run(subnet)
            self._kept[key] = Intervals.of(
                (max(first, number_of(run.first)), min(last, number_of(run.last)))
                for record in self._records.get((origin, node_id), {}).values()
                for run in record.kept
                if run.vni == network.vni
                and len(run.first) == len(run.last) == len(subnet.base)
                and first <= number_of(run.last)
                and number_of(run.first) <= min(last, number_of(run.last))
            )
        return self._kept[key]


class Departures:
    """The forgotten nodes and the statements about them, which are the same for all networks."""

    def __init__(
        self,
        forgotten: Iterable[tuple[NodeId, ForgottenNode]] = (),
        statements: Iterable[tuple[NodeId, ReclaimStatement]] = (),
    ) -> None:
        self.statements = ReclaimStatements(statements)
        gone = {record.node_id for _, record in forgotten}
        gone.update(node_id for _, node_id in self.statements)
        self.forgotten = frozenset(gone)
        self._missing: tuple[list[NodeId], list[NodeId]] | None = None

    def owed_by(self, node_id: NodeId) -> list[NodeId]:
        """Return the forgotten nodes about which a node has made no statement, in order."""
        return sorted(
            each
            for each in self.forgotten
            if each != node_id and (node_id, each) not in self.statements
        )

    def without_statement(self, members: Collection[NodeId]) -> list[NodeId]:
        """Return the members whose statements are not complete, in order of id."""
        asked = list(members)
        if self._missing is None or self._missing[0] != asked:
            complete = self.statements.complete
            found = [
                member
                for member in asked
                if member not in self.forgotten
                and not all(complete(member, node_id) for node_id in self.forgotten)
            ]
            self._missing = (asked, sorted(found))
        return self._missing[1]
