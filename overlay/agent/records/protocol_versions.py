"""Track members that speak another version of the protocol: this agent refuses their datagrams.

Owns: the event for each such member, once, and which were heard recently. Does not: refuse
(`wire.codec.datagram`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable

from overlay import limits
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.model import NodeId
from overlay.wire.codec.datagram import VERSION

SHOWN_S = 60.0  # from the last datagram; a member is probed more often than that


class ProtocolVersions:
    """Members that speak another version; `clock` returns monotonic seconds."""

    def __init__(
        self, directory: Directory, event_log: EventLog, clock: Callable[[], float]
    ) -> None:
        self._clock = clock
        self._directory = directory
        self._event_log = event_log
        self._heard: dict[NodeId, tuple[int, float]] = {}  # version, and when it was heard last

    def heard(self, node_id: NodeId, version: int) -> None:
        """Record a datagram of another version, from a member's address."""
        known, _ = self._heard.pop(node_id, (VERSION, 0.0))
        while len(self._heard) >= limits.MEMBER_COUNT_MAX:
            del self._heard[next(iter(self._heard))]
        self._heard[node_id] = (version, self._clock())
        if known != version:
            name = self._directory.node_name(node_id)
            problem, hint = self.explain(name, version)
            text = f"{problem}. {hint}"
            self._event_log.record("version", text, level=logging.WARNING, peer=name)

    def met(self, node_id: NodeId) -> None:
        """Note that a session with a member was established: it speaks this version now."""
        self._heard.pop(node_id, None)

    def recent(self) -> list[tuple[NodeId, int]]:
        """Return the members heard recently with another version, and that version."""
        since = self._clock() - SHOWN_S
        return [(node_id, version) for node_id, (version, at) in self._heard.items() if at > since]

    @staticmethod
    def explain(name: str, version: int) -> tuple[str, str]:
        """Return what is the matter with a member, and what to do."""
        older = name if version < VERSION else "this host"
        problem = (
            f"{name} speaks version {version} of the protocol, this host version {VERSION}: "
            "neither accepts what the other sends"
        )
        hint = (
            f"Upgrade overlayd on {older}. Until then their containers stay connected as they "
            "were, and changes do not arrive"
        )
        return problem, hint
