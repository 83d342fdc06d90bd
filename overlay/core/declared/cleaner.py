"""When a node deletes its records about declared objects that say nothing new.

Owns: how long all members must have been present before a removal is dropped.
Does not: write anything.
"""

from __future__ import annotations

from collections.abc import Iterable

from overlay import limits
from overlay.core.declared.objects import DeclaredObjects
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import Key


class DeclaredCleaner:
    """Decides which of a node's own records are left over."""

    def __init__(self, objects: DeclaredObjects) -> None:
        self._objects = objects
        self._present_since: float | None = None

    def due(self, states: Iterable[MemberState], now: float) -> list[Key]:
        """Return the keys that this node should delete now.

        `states` are those of all other members. A dead one that nobody has forgotten may return
        with older records, so removals wait for it.
        """
        if any(state not in (MemberState.ALIVE, MemberState.LEFT) for state in states):
            self._present_since = None
        elif self._present_since is None:
            self._present_since = now
        rested = (
            self._present_since is not None
            and now - self._present_since >= limits.DECLARED_REMOVAL_REST_S
        )
        return self._objects.leftovers(all_present=rested)
