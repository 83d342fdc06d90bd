"""Whose fault it is when many fall silent at once: theirs, or ours.

Owns that one decision. Knows members only by number, and the recently dead by name.
"""

from __future__ import annotations

from overlay.core.settings import Settings
from overlay.model import NodeId


class Freeze:
    """Set while more than a share of the members fell silent within one suspicion time.

    Then it is our own network or host that failed, more likely than all of theirs, and nobody
    must be declared dead on our word (weave #3607 and consul #5567 are the storms of death that
    follow otherwise). A few silent members never set it, so that a cluster of three may lose two.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._deaths: dict[NodeId, float] = {}  # oldest first
        self.is_set = False

    @property
    def death_count(self) -> int:
        """How many died recently enough to count."""
        return len(self._deaths)

    def next_expiry(self, window_s: float) -> float | None:
        """Return when the first of the deaths that count stops to do so."""
        oldest = next(iter(self._deaths.values()), None)
        return None if oldest is None else oldest + window_s

    def note_death(self, node_id: NodeId, now: float) -> None:
        """Count a member as fallen silent just now."""
        self._deaths.pop(node_id, None)
        self._deaths[node_id] = now

    def note_end(self, node_id: NodeId) -> None:
        """Stop counting a member that is back, has left or is forgotten."""
        self._deaths.pop(node_id, None)

    def weigh(self, alive_count: int, suspect_count: int, *, window_s: float, now: float) -> bool:
        """Decide anew, without deaths older than the window; say whether the answer changed.

        The counts are those of the other members; this node itself counts as one in view.
        """
        # The same sum as in `next_expiry`: a difference would round otherwise, and the timer
        # set for an expiry would find nothing expired, for ever.
        while (expiry := self.next_expiry(window_s)) is not None and expiry <= now:
            del self._deaths[next(iter(self._deaths))]
        silent = suspect_count + len(self._deaths)
        total = 1 + alive_count + silent
        enough = silent >= self._settings.freeze_count_min
        before, self.is_set = self.is_set, enough and silent > self._settings.freeze_share * total
        return before != self.is_set
