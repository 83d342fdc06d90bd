"""Initial sync: after a start, compare with live peers until equal.

Owns: which peer to compare with next, and the moment from which this node knows all that the live
members know, or that there are none. Only then may it delete what no record names, and write to its
own logs, because its disk may be old. Waiting for probes would take as many seconds as there are
members. In a large cluster it compares with a few dozen random members: what none of them has,
after the same sync of their own, has not been published yet. Does not: know how a comparison works
(`anti_entropy`).
"""

from __future__ import annotations

from collections.abc import Collection

from overlay.core.log.store import Store
from overlay.core.membership.machine import Membership
from overlay.core.protocol.settings import ProtocolSettings
from overlay.core.replication.anti_entropy import AntiEntropy
from overlay.core.replication.scope_sync import ScopeSync
from overlay.model import NodeId

WITNESS_COUNT = 3  # peers that must have shown what they hold of this node's logs


class InitialSync:
    """The comparisons of one node after its start."""

    def __init__(
        self,
        store: Store,
        membership: Membership,
        anti_entropy: AntiEntropy,
        scopes: ScopeSync,
        forgotten: Collection[NodeId],
        settings: ProtocolSettings,
        now: float,
    ) -> None:
        self._store = store
        self._forgotten = forgotten
        self._membership = membership
        self._anti_entropy = anti_entropy
        self._scopes = scopes
        self._settings = settings
        self._started = now
        self._due = now
        self._tried: set[NodeId] = set()
        self.is_done = False
        self._may_write = False

    def next_timer(self) -> float | None:
        """Return when the next comparison may begin."""
        if self.is_done:
            return None
        if self._may_be_alone():
            return max(self._due, self._started + self._settings.alone_wait_s)
        return self._due if self._knows_others() else None

    def handle_timer(self, now: float) -> bool:
        """Begin comparisons while there is room; return True at the end."""
        if self.is_done or now < self._due:
            return False
        self._due = now + self._settings.catch_up_interval_s
        if self._may_be_alone():
            self.is_done = now >= self._started + self._settings.alone_wait_s
            return self.is_done
        matched = self._anti_entropy.matched
        live = self._membership.live()
        if not live and self._knows_others():  # all are dead: a member that returns is probed first
            self._due = now + self._settings.probe_interval_s
        lacking = [node_id for node_id in live if node_id not in matched]
        enough = len(live) - len(lacking) >= self._settings.catch_up_peers_max
        if matched and (enough or not lacking) and self._scopes.is_done:
            self.is_done = True
            return True
        if self._anti_entropy.has_room():
            untried = [node_id for node_id in lacking if node_id not in self._tried]
            if not untried:
                self._tried.clear()
                untried = lacking
            for peer in self._membership.choose(1, exclude=matched | self._tried) or untried[:1]:
                self._tried.add(peer)
                if not self._anti_entropy.under_way(peer):
                    self._anti_entropy.begin(peer, now)
        return False

    def may_write(self, now: float) -> bool:
        """Return whether this node may write to its own logs (the amnesia rule).

        Its disk may be an old copy: first some peers must have sent all that they hold, including
        this node's own logs. If it reaches no peer it waits `amnesia_wait_s`, without end on a disk
        that is known to be old; if it knows of no other member, it waits `first_contact_wait_s`.
        """
        others = self._count_others()
        heard = len(self._anti_entropy.matched) >= min(WITNESS_COUNT, others) and (
            others > 0 or now - self._started >= self._settings.first_contact_wait_s
        )
        waited = now - self._started >= self._settings.amnesia_wait_s
        if self.is_done or waited or (heard and self._scopes.is_done):
            self._may_write = True  # for this run: scopes added later say nothing about the disk
        return self._may_write

    def _count_others(self) -> int:
        """Return how many other members there are, as far as known here."""
        return sum(
            node_id != self._store.self_id and not card.left and node_id not in self._forgotten
            for node_id, card in self._store.cards.items()
        )

    def _may_be_alone(self) -> bool:
        """Return whether no other member is known, and none is expected."""
        expects_none = self._settings.founded_cluster or self._knows_others()
        return expects_none and self._count_others() == 0

    def _knows_others(self) -> bool:
        return len(self._store.cards) > 1
