"""The authority's backup: exported to a text that a passphrase seals, imported on any member.

Owns: when that is refused, and that deriving a key from the passphrase does not stop the agent.
Does not: know the text's format (`wire.identity.authority_export`), files, or HTTP.
"""

from __future__ import annotations

import asyncio
import os

from overlay.agent.gossip.authority.handover import AuthoritySharing
from overlay.agent.gossip.authority.holders import AuthorityHolders
from overlay.agent.gossip.service import GossipService
from overlay.agent.process.event_log import EventLog
from overlay.wire.identity.authority_export import open_authority, seal_authority


class AuthorityBackup:
    """Exports and imports of one member; one at a time, as each takes 64 MiB."""

    def __init__(
        self,
        gossip: GossipService,
        holders: AuthorityHolders,
        sharing: AuthoritySharing,
        event_log: EventLog,
    ) -> None:
        self._gossip = gossip
        self._holders = holders
        self._sharing = sharing
        self._event_log = event_log
        self._one_at_a_time = asyncio.Lock()

    async def export(self, passphrase: str) -> str:
        """Return the authority, sealed by a passphrase.

        Raises ConflictError where it is not held, UsageError for an unsuitable passphrase.
        """
        authority = self._holders.require_authority()
        async with self._one_at_a_time:
            sealed = await asyncio.to_thread(seal_authority, authority, passphrase, os.urandom)
        self._event_log.record("authority", "the authority was exported, sealed by a passphrase")
        return sealed

    async def restore(self, sealed: str, passphrase: str) -> bool:
        """Hold the authority from an exported text; return False if it was held already.

        Raises the OverlayError of a text or passphrase that is wrong.
        """
        async with self._one_at_a_time:
            authority = await asyncio.to_thread(
                open_authority, sealed, passphrase, self._gossip.anchor
            )
        if self._gossip.authority is not None:
            return False
        self._sharing.hold(authority.to_bytes(), "this host holds the authority, from an export")
        return True
