"""Identities that something is wrong with: this host's own, forgotten by the others, and those that
several hosts use.

Owns: what is told of them, once for each. Must not know: how it was found out (`wire`).
"""

from __future__ import annotations

import logging

from overlay import limits
from overlay.agent.gossip.service import GossipService
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.model import Ip, NodeId, ip_text


class IdentityConflicts:
    """`barred_by`: who says that this host was forgotten, in the order it was heard."""

    def __init__(self, gossip: GossipService, directory: Directory, event_log: EventLog) -> None:
        self.forgotten_by: dict[NodeId, None] = {}
        self._duplicates = DuplicateSightings()
        self._gossip = gossip
        self._directory = directory
        self._event_log = event_log

    def recent_duplicates(self) -> list[tuple[NodeId, Ip]]:
        """Return the identities lately seen twice, and where the other host is."""
        return self._duplicates.recent(self._gossip.transport.now())

    def has_duplicate(self) -> bool:
        """Say whether another host was lately seen under this node's identity."""
        return any(node_id == self._gossip.node_id for node_id, _ in self.recent_duplicates())

    def duplicate_seen(self, node_id: NodeId, address: Ip) -> None:
        """Take one sighting of another host under an identity in use."""
        if self._duplicates.note(node_id, address, self._gossip.transport.now()):
            name = self._directory.node_name(node_id)
            self._event_log.record(
                "clone",
                f"another host at {ip_text(address)} uses the identity of {name}: a copied disk? "
                "Give one of them a new identity: overlayd reset, then overlayd join",
                level=logging.ERROR,
                peer=name,
            )

    def forgotten_by_member(self, node_id: NodeId) -> None:
        """Take a member's word that this host was forgotten."""
        if node_id not in self.forgotten_by:
            self.forgotten_by[node_id] = None
            name = self._directory.node_name(node_id)
            self._event_log.record(
                "barred",
                f"{name} says that this host was forgotten: the cluster does not hear it any "
                "more. To come back as a new node: overlayd reset, then overlayd join",
                level=logging.ERROR,
                peer=name,
            )


DUPLICATE_SHOWN_S = (
    60.0  # after it was last seen: both sides repeat it every few seconds while it lasts
)


class DuplicateSightings:
    """Pairs of an identity and the address of one more host that uses it."""

    def __init__(self) -> None:
        self._seen: dict[tuple[NodeId, Ip], float] = {}

    def note(self, node_id: NodeId, address: Ip, now: float) -> bool:
        """Take one sighting; return whether it is news."""
        known = self._seen.pop((node_id, address), None)
        while len(self._seen) >= limits.RIVALS_MAX:
            del self._seen[next(iter(self._seen))]
        self._seen[node_id, address] = now
        return known is None or now - known > DUPLICATE_SHOWN_S

    def recent(self, now: float) -> list[tuple[NodeId, Ip]]:
        """Return those seen lately, the latest first."""
        return [
            pair for pair, when in reversed(self._seen.items()) if now - when <= DUPLICATE_SHOWN_S
        ]
