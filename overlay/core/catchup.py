"""After a start: comparing with every live peer, until nothing is missing.

Owns: with whom to compare next, and the moment from which this node knows all that the live
members know. Only then may it delete what no record asks for, and write to its own logs: its
disk may be old. Waiting for probes to come round would take as many seconds as there are
members. Must not know: how a comparison works (`repair`).
"""

from __future__ import annotations

from collections import deque

from overlay.core.membership import Membership
from overlay.core.repair import Repair
from overlay.core.settings import Settings
from overlay.core.store import Store
from overlay.model import NodeId

_WITNESS_COUNT = 3  # as many peers as must have told what they hold of our own logs


class CatchUp:
    """The first round of comparisons of one run of a node."""

    def __init__(
        self,
        store: Store,
        membership: Membership,
        repair: Repair,
        settings: Settings,
        now: float,
    ) -> None:
        self._store = store
        self._membership = membership
        self._repair = repair
        self._settings = settings
        self._started = now
        self._due = now
        self._turn: deque[NodeId] = deque()
        self.is_done = False

    def next_timer(self) -> float | None:
        """Return when the next comparison may be begun."""
        return None if self.is_done or not self._knows_others() else self._due

    def handle_timer(self, now: float) -> bool:
        """Begin comparisons as there is room; return whether the round has just ended."""
        if self.is_done or now < self._due:
            return False
        self._due = now + self._settings.catch_up_interval_s
        matched = self._repair.matched
        live = self._membership.live()
        lacking = {node_id for node_id in live if node_id not in matched}
        if not lacking and matched:
            self.is_done = True
            self._turn.clear()
            return True
        if not self._turn:
            self._turn.extend(node_id for node_id in live if node_id in lacking)
        while self._turn and self._repair.has_room():
            peer = self._turn.popleft()
            if peer in lacking and not self._repair.under_way(peer):
                self._repair.begin(peer, now)
        return False

    def may_write(self, now: float) -> bool:
        """Say whether this node may write to its own logs (the amnesia rule).

        Its disk may have been restored from an old copy: first some peers must have given all
        that they hold, of our own logs too. Without a peer in reach it waits `amnesia_wait_s`;
        who knows of nobody need not wait.
        """
        others = len(self._store.cards) - 1
        if self.is_done or len(self._repair.matched) >= min(_WITNESS_COUNT, others):
            return True
        return now - self._started >= self._settings.amnesia_wait_s

    def _knows_others(self) -> bool:
        return len(self._store.cards) > 1
