"""The fabric's table, kept while no session is up.

FRR 8.4 has no graceful restart for EVPN: when bgpd or the last route reflector dies, its rows
vanish from the kernel, although every VTEP still forwards. So additions always count, and removals
only while a session is up and the table has settled after its begin. Rows that an agent adopts at
its start are held for a while only: it cannot know when they were told last.
Owns: that rule. Does not: know a clock; its caller passes the time.
"""

from __future__ import annotations

from collections.abc import Hashable

from overlay import limits
from overlay.core.fabric import NO_FABRIC, FabricRows
from overlay.model import Vni


class KeptTable:
    """The rows to forward by."""

    def __init__(
        self,
        settle_s: float = limits.EVPN_SETTLE_S,
        settle_max_s: float = limits.EVPN_SETTLE_MAX_S,
    ) -> None:
        self.rows = NO_FABRIC
        self._settle_s = settle_s
        self._settle_max_s = settle_max_s
        self._seen = NO_FABRIC
        self._vnis: frozenset[Vni] = frozenset()
        self._session: Hashable | None = None
        self._up_at_s = 0.0
        self._changed_at_s = 0.0
        self._is_settled = False
        self._adopted = NO_FABRIC  # not told again since
        self._adopted_until_s = 0.0

    @property
    def is_settled(self) -> bool:
        """Return whether a session is up and its table is complete."""
        return self._is_settled

    def adopt(self, now_s: float, rows: FabricRows, hold_s: float = limits.EVPN_HOLD_S) -> None:
        """Forward by rows that this host still has, for some time unless they are told again."""
        self.rows = self._adopted = rows
        self._adopted_until_s = now_s + hold_s

    def update(
        self, now_s: float, seen: FabricRows, session: Hashable | None, vnis: frozenset[Vni]
    ) -> None:
        """Take what the kernel has now.

        `session` is None while no session is up; it changes when FRR was restarted. `vnis` are the
        segments that are exported: `seen` has rows of these alone, and those kept of others go at
        once.
        """
        if session is None or session != self._session:
            self._session, self._is_settled = session, False
            self._up_at_s = self._changed_at_s = now_s
        if seen != self._seen:
            self._seen, self._changed_at_s = seen, now_s
        if session is not None and not self._is_settled:
            is_quiet = now_s - self._changed_at_s >= self._settle_s
            self._is_settled = is_quiet or now_s - self._up_at_s >= self._settle_max_s
        before = self.rows
        if vnis != self._vnis:
            self._vnis, before = vnis, before.on(vnis)
        if self._adopted and now_s >= self._adopted_until_s:
            before, self._adopted = before.without(self._adopted), NO_FABRIC
        rows = seen if self._is_settled else before.updated(seen)
        if self._is_settled:
            self._adopted = NO_FABRIC
        if rows != self.rows:
            self.rows = rows
