"""This node's records of networks' switches, and how long they stay.

Owns: writing progress, requests and the goals of networks without a creator, and deleting them when
they say nothing new. Does not: know when a step is taken (`switch`).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Iterator

from overlay import limits
from overlay.agent.gossip.context import NodeContext
from overlay.core.dataplane.network_drivers import encryption_goal, is_encrypted
from overlay.core.encryption.orphan_goal import goal_after, serial_of
from overlay.core.encryption.switch_phase import Progress
from overlay.core.encryption.switch_records import (
    SwitchRequest,
    progress_of,
    progress_record,
    request_record,
    requests_of,
)
from overlay.core.protocol.records import CLUSTER_SCOPE, CustomRecord, key_of
from overlay.errors import ConflictError
from overlay.model import Network, NodeId


class SwitchLog:
    """The records of switches; all that write raise OverlayError if the disk refuses."""

    def __init__(self, context: NodeContext) -> None:
        self._gossip = context.gossip
        self._directory = context.directory
        self._ended_at: dict[int, float] = {}  # by VNI: when progress became useless

    @property
    def is_tidy(self) -> bool:
        """Return whether no record waits for its deletion."""
        return not self._ended_at

    def records(self, node_id: NodeId) -> list[CustomRecord]:
        """Return a node's custom records of the cluster's scope."""
        values = self._gossip.node.store.values_of(node_id, CLUSTER_SCOPE, "name")
        return [value for value in values if isinstance(value, CustomRecord)]

    def is_defined(self, network: Network) -> bool:
        """Return whether a network's definition says how far it is."""
        found = self._directory.definition(network.vni, network.creator)
        return found is not None and (encryption_goal(found), is_encrypted(found)) == (
            encryption_goal(network),
            is_encrypted(network),
        )

    def publish(self, progress: Progress) -> None:
        """Write this node's progress in place of the one before."""
        own = self.records(self._gossip.node_id)
        self.write(
            [progress_record(progress)],
            [each for each in own if progress.vni in progress_of([each])],
        )

    def give_goal(self, network: Network, *, encrypted: bool) -> None:
        """Give a network without a creator a goal, where this node stands.

        Raises ConflictError if there is no newer one.
        """
        view, own = self._directory.view, self._gossip.node_id
        progress = view.switch_progress(network)
        before = [serial_of(network), *(each.serial for each in progress.values() if each)]
        goal = goal_after(before, int(time.time()), encrypted=encrypted)
        if goal.serial > limits.ENCRYPTION_SERIAL_MAX:
            raise ConflictError(
                f"network {network.name} can no longer be switched",
                why="a member has given it a goal with the highest number that there is, as no "
                "honest agent does",
                hint="Create another network, and move the containers: overlayd network create "
                "NAME --encrypted",
            )
        here = progress[own] or Progress(
            network.vni, goal.serial, view.encryption_phase(network), is_done=True
        )
        self.publish(here._replace(serial=goal.serial))

    def ask_creator(self, network: Network, *, encrypted: bool) -> None:
        """Ask a network's creator for a goal."""
        request = SwitchRequest(network.vni, serial_of(network), encrypted)
        self.write([request_record(request)], [])

    def withdraw(self, network: Network) -> None:
        """Take back this node's request for a network."""
        vni, own = network.vni, self.records(self._gossip.node_id)
        self.write([], [each for each in own if any(r.vni == vni for r in requests_of([each]))])

    def write(self, puts: Iterable[CustomRecord], deletes: Iterable[CustomRecord]) -> None:
        """Write and delete records of this node, as far as they are not so already."""
        there = self.records(self._gossip.node_id)
        new = [each for each in puts if each not in there]
        keys = [key_of(each) for each in deletes if each not in new]
        if new or keys:
            self._gossip.publish(self._gossip.commit(CLUSTER_SCOPE, new, keys))

    def tidy(self, switching: Collection[int], now: float) -> None:
        """Delete the records of switches that are over, some time later.

        A member that learns of the end late still learns from them where all are. Where no
        definition says so they stay.
        """
        own = self.records(self._gossip.node_id)
        progress, answered = progress_of(own), self._answered(own)
        over = {vni for vni in progress if vni not in switching and not self._is_needed(vni)}
        self._ended_at = {vni: self._ended_at.get(vni, now) for vni in over}
        late = {
            vni
            for vni, ended in self._ended_at.items()
            if now - ended >= limits.ENCRYPTION_SWITCH_KEPT_S
        }
        self.write([], [*answered, *(progress_record(progress[vni]) for vni in sorted(late))])
        for vni in late:
            del self._ended_at[vni]

    def _is_needed(self, vni: int) -> bool:
        network = self._directory.network_by_vni(vni)
        return network is not None and not self.is_defined(network)

    def _answered(self, own: list[CustomRecord]) -> Iterator[CustomRecord]:
        """Yield this node's requests that the network's creator has decided on."""
        for request in requests_of(own):
            network = self._directory.network_by_vni(request.vni)
            if network is None or serial_of(network) != request.after:
                yield request_record(request)
