"""Track identity problems: this node was forgotten, or several hosts share one identity.

Owns: the event for each problem, once. Does not: detect them (`wire.session`).
"""

from __future__ import annotations

import logging

from overlay import limits
from overlay.agent.gossip.service import GossipService
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.model import Ip, NodeId, ip_text


class IdentityConflicts:
    """Identity problems; `forgotten_by`: the members that report this host as forgotten, in order
    of their first report."""

    def __init__(self, gossip: GossipService, directory: Directory, event_log: EventLog) -> None:
        self.forgotten_by: dict[NodeId, None] = {}
        self._duplicates = DuplicateSightings()
        self._gossip = gossip
        self._directory = directory
        self._event_log = event_log

    def recent_duplicates(self) -> list[tuple[NodeId, Ip]]:
        """Return the identities recently seen twice, and the address of the other host."""
        return self._duplicates.recent(self._gossip.transport.now())

    def has_duplicate(self) -> bool:
        """Return whether another host was recently seen under this node's identity."""
        return any(node_id == self._gossip.node_id for node_id, _ in self.recent_duplicates())

    def duplicate_seen(self, node_id: NodeId, address: Ip) -> None:
        """Record that another host uses an identity."""
        if self._duplicates.note(node_id, address, self._gossip.transport.now()):
            name = self._directory.node_name(node_id)
            self._event_log.record(
                "clone",
                f"another host at {ip_text(address)} uses the identity of {name}: was its disk "
                "copied? Give one of them a new identity: overlayd reset, then overlayd join",
                level=logging.ERROR,
                peer=name,
            )

    def forgotten_by_member(self, node_id: NodeId) -> None:
        """Record a member's report that this host was forgotten."""
        if node_id not in self.forgotten_by:
            self.forgotten_by[node_id] = None
            name = self._directory.node_name(node_id)
            self._event_log.record(
                "banned",
                f"{name} reports that this host was forgotten: the cluster ignores it from now "
                "on. To come back as a new node: overlayd reset, then overlayd join",
                level=logging.ERROR,
                peer=name,
            )


DUPLICATE_SHOWN_S = 60.0  # from the last sighting; while it lasts there is one every few seconds


class DuplicateSightings:
    """Pairs of an identity and the address of another host that uses it."""

    def __init__(self) -> None:
        self._seen: dict[tuple[NodeId, Ip], float] = {}

    def note(self, node_id: NodeId, address: Ip, now: float) -> bool:
        """Record one sighting; return whether it is new."""
        known = self._seen.pop((node_id, address), None)
        while len(self._seen) >= limits.RIVALS_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[node_id, address] = now
        return known is None or now - known > DUPLICATE_SHOWN_S

    def recent(self, now: float) -> list[tuple[NodeId, Ip]]:
        """Return the pairs seen recently, the latest first."""
        return [
            pair for pair, when in reversed(self._seen.items()) if now - when <= DUPLICATE_SHOWN_S
        ]
