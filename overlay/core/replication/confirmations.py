"""Wait until other nodes' kernels are programmed, and confirm to them.

Owns: this node's waits, and its pending confirmations for others. A wait never hangs: members
that are no longer alive are removed from it, and the owner may cancel it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import chain

from overlay import limits
from overlay.core.log.store import Store
from overlay.core.protocol.messages import Confirm, LogVersion
from overlay.core.protocol.outbox import Outbox, Priority, pages
from overlay.core.protocol.records import Scope, Segment, key_of
from overlay.core.protocol.settings import ProtocolSettings
from overlay.model import Endpoint, NodeId
from overlay.signals import Signal

_RETRY_GROWTH = 2.0


@dataclass(slots=True)
class _Wait:
    segments: list[Segment]
    upto: dict[Scope, int]
    missing: dict[NodeId, set[Scope]]
    due: float
    pause_s: float
    confirmed_by: list[NodeId] = field(default_factory=list)


@dataclass(slots=True)
class Confirmations:
    """Waits for confirmations, and confirmations requested by peers.

    Signal `confirmed`: the id of a wait and the peers that confirmed it, as soon as each peer has
    confirmed or is gone.
    """

    store: Store
    outbox: Outbox
    settings: ProtocolSettings
    confirmed: Signal[[int, list[NodeId]]] = field(default_factory=Signal)
    _waits: dict[int, _Wait] = field(default_factory=dict)
    _next_id: int = 1
    _programmed: dict[tuple[NodeId, Scope], int] = field(default_factory=dict)
    _requests: dict[tuple[NodeId, Scope], dict[NodeId, int]] = field(default_factory=dict)

    # --- requests by this node ----------------------------------------------------------

    def wait_for(
        self, segments: list[Segment], peers: dict[Scope, list[NodeId]], now: float
    ) -> int | None:
        """Send segments and request confirmations; return the id of the wait.

        None if no peer was asked.
        """
        missing: dict[NodeId, set[Scope]] = {}
        upto: dict[Scope, int] = {}
        for segment in segments:
            upto[segment.scope] = max(upto.get(segment.scope, 0), segment.upto)
        for scope in upto:
            for peer in peers.get(scope, []):
                missing.setdefault(peer, set()).add(scope)
        if not missing or len(self._waits) >= limits.CONFIRM_WAITS_MAX:
            return None
        wait = _Wait(
            segments,
            upto,
            missing,
            now + self.settings.confirm_retry_s,
            self.settings.confirm_retry_s,
        )
        self._send(wait)
        wait_id, self._next_id = self._next_id, self._next_id + 1
        self._waits[wait_id] = wait
        return wait_id

    def _send(self, wait: _Wait) -> None:
        for peer, scopes in wait.missing.items():
            wanted = [segment for segment in wait.segments if segment.scope in scopes]
            self.outbox.put_segments(peer, wanted, Priority.OWN, confirm=True)

    def receive(self, message: Confirm, sender: NodeId) -> None:
        """Record what a peer confirms of this node's own logs."""
        for said in message.versions:
            if said.origin != self.store.self_id:
                continue
            for wait_id, wait in list(self._waits.items()):
                upto = wait.upto.get(said.scope)
                if upto is not None and said.version >= self._equivalent_version(said.scope, upto):
                    self._record(wait_id, wait, sender, said.scope)

    def _equivalent_version(self, scope: Scope, upto: int) -> int:
        """Return the version at which a peer has the entries written up to one.

        Cleaning rewrites live entries above the new floor, and the last segment of them carries
        the floor. A peer that receives the floor first is at that version at once, but without
        those entries.
        """
        log = self.store.log(self.store.self_id, scope)
        if log is None or log.floor < upto:
            return upto
        # A log that is being recovered after a disk rollback may have no segment yet.
        return next((each.upto for each in log.segments if each.floor >= upto), log.version)

    def forget_node(self, node_id: NodeId) -> None:
        """Stop waiting for a node that is not alive."""
        for wait_id, wait in list(self._waits.items()):
            if wait.missing.pop(node_id, None) is not None and not wait.missing:
                self._finish(wait_id)

    def _record(self, wait_id: int, wait: _Wait, node_id: NodeId, scope: Scope) -> None:
        scopes = wait.missing.get(node_id)
        if scopes is None:
            return
        scopes.discard(scope)
        if not scopes:
            del wait.missing[node_id]
            wait.confirmed_by.append(node_id)
        if not wait.missing:
            self._finish(wait_id)

    def _finish(self, wait_id: int) -> None:
        wait = self._waits.pop(wait_id)
        self.confirmed.emit(wait_id, wait.confirmed_by)

    def missing(self, wait_id: int) -> tuple[NodeId, ...]:
        """Return the nodes that have not confirmed yet, in order of id."""
        wait = self._waits.get(wait_id)
        return () if wait is None else tuple(sorted(wait.missing))

    def forget(self, wait_id: int) -> None:
        """Cancel a wait."""
        self._waits.pop(wait_id, None)

    def next_timer(self) -> float | None:
        """Return when a retransmission is due."""
        return min((wait.due for wait in self._waits.values()), default=None)

    def handle_timer(self, now: float) -> None:
        """Retransmit unconfirmed segments, with growing pauses."""
        for wait in self._waits.values():
            if now >= wait.due:
                wait.pause_s *= _RETRY_GROWTH
                wait.due = now + wait.pause_s
                self._send(wait)

    # --- requests by peers --------------------------------------------------------------

    def handle_request(self, segment: Segment, sender: NodeId) -> bool:
        """Note that a peer requests confirmation of a segment.

        True if the kernel is not programmed with it yet; else the answer is sent.
        """
        log = (segment.origin, segment.scope)
        if self._programmed.get(log, 0) >= segment.upto:
            self._answer(sender, [log])
            return False
        owed = self._requests.setdefault(log, {})
        owed[sender] = max(owed.get(sender, 0), segment.upto)
        return True

    def confirmable(
        self,
        versions: Iterable[LogVersion],
        losers: Callable[[Scope, Iterable[tuple[NodeId, Endpoint]]], Collection[NodeId]],
    ) -> list[LogVersion]:
        """Return the versions that may be confirmed once the kernel is programmed with them.

        Not those of `losers` among the origins of new endpoints, which lose an address to another
        one by the records held here: the kernel forwards to that other one until a grant, or its
        end, is known here. They are asked for once a scope, as all records are read to answer.
        """
        held = list(versions)
        by_scope: dict[Scope, list[LogVersion]] = {}
        for version in held:
            by_scope.setdefault(version.scope, []).append(version)
        losing: dict[Scope, Collection[NodeId]] = {}
        for scope, found in by_scope.items():
            new = chain.from_iterable(map(self._new_endpoints, found))  # may be all records
            first = next(new, None)
            losing[scope] = () if first is None else losers(scope, chain((first,), new))
        return [version for version in held if version.origin not in losing[version.scope]]

    def _new_endpoints(self, version: LogVersion) -> Iterator[tuple[NodeId, Endpoint]]:
        """Yield endpoints of another node that the kernel may not be programmed with yet."""
        log = self.store.log(version.origin, version.scope)
        if log is None or version.origin == self.store.self_id:
            return
        programmed = self._programmed.get((version.origin, version.scope), 0)
        for segment in reversed(log.segments):
            if segment.upto <= programmed:
                return
            for value in segment.written:
                if isinstance(value, Endpoint) and log.live.get(key_of(value)) is value:
                    yield version.origin, value

    def programmed(self, versions: Iterable[LogVersion]) -> None:
        """Note what the kernel is programmed with, and send confirmations due."""
        answers: dict[NodeId, list[tuple[NodeId, Scope]]] = {}
        for version in versions:
            log = (version.origin, version.scope)
            if self._programmed.get(log, 0) >= version.version:
                continue
            self._programmed[log] = version.version
            owed = self._requests.get(log)
            if owed is None:
                continue
            for peer in [peer for peer, upto in owed.items() if upto <= version.version]:
                del owed[peer]
                answers.setdefault(peer, []).append(log)
            if not owed:
                del self._requests[log]
        for peer, logs in answers.items():
            self._answer(peer, logs)

    def _answer(self, peer: NodeId, logs: list[tuple[NodeId, Scope]]) -> None:
        versions = [LogVersion(*log, self._programmed[log], 0) for log in logs]
        for page in pages(versions):
            self.outbox.put(peer, Confirm(page), Priority.PROBE)
