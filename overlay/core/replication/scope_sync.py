"""Sync of scopes that were joined, or restored from disk.

Owns: for each such scope, which peer to compare with next, and when enough holders have shown all
they have. In a large cluster few members hold a given scope, and probes would take as many
seconds to reach one of them as there are members. Does not: know how a comparison works
(`anti_entropy`).
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field

from overlay.core.log.store import Store
from overlay.core.membership.machine import Membership
from overlay.core.protocol.messages import MemberState
from overlay.core.protocol.records import Scope
from overlay.core.protocol.settings import ProtocolSettings
from overlay.core.replication.anti_entropy import AntiEntropy
from overlay.model import NodeId

_LIVE = frozenset({MemberState.ALIVE, MemberState.SUSPECT})


@dataclass(slots=True)
class _Pending:
    witnesses: int  # holders that must have shown all they have, or all if there are fewer
    tried: set[NodeId] = field(default_factory=set)


class ScopeSync:
    """The scopes whose records are not complete here yet."""

    def __init__(
        self,
        store: Store,
        membership: Membership,
        anti_entropy: AntiEntropy,
        settings: ProtocolSettings,
        rng: random.Random,
    ) -> None:
        self._store = store
        self._membership = membership
        self._anti_entropy = anti_entropy
        self._settings = settings
        self._rng = rng
        self._pending: dict[Scope, _Pending] = {}
        self._due = 0.0

    def begin(self, scope: Scope, witnesses: int, now: float) -> None:
        """Begin to sync a scope that this node now holds."""
        if scope in self._pending:
            return
        self._pending[scope] = _Pending(witnesses)
        for peer in self._holders(scope):  # what was equal before was so without this scope
            self._anti_entropy.matched.discard(peer)
            self._anti_entropy.forget(peer)
        self._due = now

    def is_pending(self, scope: Scope) -> bool:
        """Return whether holders of a scope may have records that are not here."""
        return scope in self._pending

    @property
    def is_done(self) -> bool:
        """Whether no scope is pending."""
        return not self._pending

    def next_timer(self) -> float | None:
        """Return when the next comparison may begin."""
        return self._due if self._pending else None

    def handle_timer(self, now: float) -> None:
        """Remove complete scopes; begin comparisons while there is room."""
        if not self._pending or now < self._due:
            return
        self._due = now + self._settings.catch_up_interval_s
        for scope, pending in list(self._pending.items()):
            holders = self._holders(scope)
            lacking = [peer for peer in holders if peer not in self._anti_entropy.matched]
            if len(holders) - len(lacking) >= min(pending.witnesses, len(holders)):
                del self._pending[scope]
            else:
                self._compare(lacking, pending, now)

    def _compare(self, lacking: list[NodeId], pending: _Pending, now: float) -> None:
        if not self._anti_entropy.has_room() or any(map(self._anti_entropy.under_way, lacking)):
            return  # one at a time: all holders would send the same
        untried = [peer for peer in lacking if peer not in pending.tried]
        if not untried:
            pending.tried.clear()
            untried = lacking
        if untried:
            peer = self._rng.choice(untried)  # not all newcomers at the same holder
            pending.tried.add(peer)
            self._anti_entropy.begin(peer, now)

    def _holders(self, scope: Scope) -> list[NodeId]:
        part = self._store.participants.get(scope, {})
        return [node_id for node_id in part if self._membership.state_of(node_id) in _LIVE]
