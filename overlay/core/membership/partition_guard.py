"""Decide whether many silent members mean that this node is partitioned.

Owns: that decision. Does not: know members, except their number and which died recently.
"""

from __future__ import annotations

from overlay.core.protocol.settings import ProtocolSettings
from overlay.model import NodeId


class PartitionGuard:
    """Set while too many members fell silent within one suspicion timeout.

    Then the network of this node is more likely to have failed than all of theirs, and it must
    declare nobody dead (weave #3607 and consul #5567 show the cascade of false deaths that
    follows otherwise). A few silent members never set it, so that a cluster of three may lose
    two.
    """

    def __init__(self, settings: ProtocolSettings) -> None:
        self._settings = settings
        self._deaths: dict[NodeId, float] = {}  # oldest first
        self._calm_since: float | None = None  # set while frozen although all are reachable
        self.is_set = False

    @property
    def death_count(self) -> int:
        """How many members died recently enough to count."""
        return len(self._deaths)

    def next_timer(self, window_s: float, calm_s: float) -> float | None:
        """Return when `evaluate` may change its result by time alone."""
        oldest = next(iter(self._deaths.values()), None)
        expiry = None if oldest is None else oldest + window_s
        if self._calm_since is None:
            return expiry
        thaw = self._calm_since + calm_s
        return thaw if expiry is None else min(expiry, thaw)

    def note_death(self, node_id: NodeId, now: float) -> None:
        """Count a member as having fallen silent now."""
        self._deaths.pop(node_id, None)
        self._deaths[node_id] = now

    def note_end(self, node_id: NodeId) -> None:
        """Stop counting a member that has returned, left or been forgotten."""
        self._deaths.pop(node_id, None)

    def evaluate(
        self, alive_count: int, suspect_count: int, *, window_s: float, calm_s: float, now: float
    ) -> bool:
        """Decide again; return whether the decision changed.

        The counts are those of the other members; this node itself counts as one that is
        reachable. Deaths count for `window_s`; a freeze ends once all was well for `calm_s`,
        because a partition heals with interruptions.
        """
        # Compute the same sums as `next_timer`: different ones could round otherwise, and then a
        # timer for an expiry would find nothing expired, forever.
        while self._deaths and next(iter(self._deaths.values())) + window_s <= now:
            del self._deaths[next(iter(self._deaths))]
        silent = suspect_count + len(self._deaths)
        share = self._settings.freeze_share * (1 + alive_count + silent)
        bad = silent >= self._settings.freeze_count_min and silent > share
        if bad or not self.is_set:
            self._calm_since = None
            changed = bad != self.is_set
            self.is_set = bad
            return changed
        if self._calm_since is None:
            self._calm_since = now
        if self._calm_since + calm_s > now:
            return False
        self._calm_since = None
        self.is_set = False
        return True
