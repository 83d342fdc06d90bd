"""Contact members at other places than their cards name, while some are not found.

Those are the peers given to `overlayd join`, and the addresses that the nodes' names have now:
after all hosts were renumbered, no card is right.

Does not: admit hosts, or believe anything but the sealed answers.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace

from overlay import limits
from overlay.agent.gossip import join_request
from overlay.agent.gossip.context import NodeContext
from overlay.agent.gossip.join_request import JoinSeed
from overlay.agent.process.controller import Controller
from overlay.agent.state import membership_documents
from overlay.core.protocol.messages import MemberState
from overlay.errors import OverlayError
from overlay.model import Card


class SeedContact(Controller):
    """Looks for the members that this node does not find."""

    name = "seeds"
    runs_at_start = False  # the cards may be right

    def __init__(self, context: NodeContext) -> None:
        super().__init__(context.event_log)
        self._gossip = context.gossip
        self._directory = context.directory
        self._pause_s = limits.SEED_RETRY_FIRST_S
        self._next_name = 0  # of the names of lost members: they take turns

    def next_interval_s(self) -> float:
        """Return the pause in seconds: it grows while no member is found."""
        return self._pause_s

    async def reconcile(self) -> None:
        """Contact the seeds if no peer is alive, and lost members at their names."""
        seeds = () if self._gossip.has_alive_peers() else self._gossip.cluster.seeds
        lost = self._lost()
        if not seeds and not lost:
            self._pause_s = limits.SEED_RETRY_FIRST_S
            return
        self._pause_s = min(2 * self._pause_s, limits.SEED_RETRY_MAX_S)
        if seeds:
            with contextlib.suppress(OverlayError):  # no name of them resolves now
                await self.contact(seeds)
        for card in self._turn(lost):
            with contextlib.suppress(OverlayError):
                await self.contact([card.name], card.gossip_port)

    def _lost(self) -> list[Card]:
        members = self._gossip.node.membership.members()
        cards = [
            self._directory.card(member.node_id)
            for member in members
            if member.state is MemberState.DEAD
        ]
        return [card for card in cards if card is not None and not card.left]

    def _turn(self, lost: Sequence[Card]) -> list[Card]:
        """Return the members whose turn it is: a name may take seconds to resolve."""
        count = min(len(lost), limits.LOST_MEMBERS_RESOLVED_MAX)
        first, self._next_name = self._next_name, self._next_name + count
        return [lost[(first + at) % len(lost)] for at in range(count)]

    async def contact(self, peers: Sequence[str], port: int | None = None) -> list[JoinSeed]:
        """Greet peers as a member; a session makes both know where the other is.

        Returns where they are. Raises UsageError if no peer has an address.
        """
        gossip = self._gossip
        seeds = await join_request.resolve(peers, port or gossip.cluster.gossip_port)
        for seed in seeds:
            if seed.address != gossip.card.address:
                gossip.transport.send_join_hello(seed.address, seed.port)
        return seeds

    async def require_member(self, peers: Sequence[str]) -> None:
        """Contact peers, and remember them; raises ConflictError if none is of this cluster.

        A host of another cluster cannot read the hello, so it is as silent as a host that is down.
        A known member passes without an answer: joining again is harmless while it is down.
        """
        gossip = self._gossip
        deadline = gossip.transport.now() + limits.PEER_CHECK_TIMEOUT_S
        while True:
            seeds = await self.contact(peers)
            places = {(seed.address, seed.port) for seed in seeds}
            if await gossip.wait_member(places, join_request.HELLO_RETRY_INTERVAL_S):
                break
            if gossip.transport.now() >= deadline:
                raise join_request.foreign_peer_error(seeds, gossip.cluster.cluster_id)
        known = tuple(dict.fromkeys([*peers, *gossip.cluster.seeds]))[: limits.SEED_COUNT_MAX]
        if known != gossip.cluster.seeds:
            gossip.cluster = replace(gossip.cluster, seeds=known)
            membership_documents.CLUSTER.put(gossip.state, gossip.cluster)
