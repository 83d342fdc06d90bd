"""Roll back failed attaches; retry while the disk rejects writes.

The caller of a failed attach reads why it failed. A rollback that cannot be written yet is pending
until it can be. A restart of the agent attaches again what the state on disk holds.

Owns: the pending rollbacks.
Does not: know what an attach or a detach consists of.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable

from overlay.agent.endpoints.detach import EndpointDetacher
from overlay.agent.process.controller import Controller
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.errors import OverlayError
from overlay.model import Endpoint


class Rollback(Controller):
    """The attachments of this node that must be removed and still exist."""

    name = "rollback"
    problem = "a failed attach is not rolled back yet"
    runs_at_start = False  # nothing is pending

    def __init__(
        self,
        detacher: EndpointDetacher,
        directory: Directory,
        attachments: Attachments,
        event_log: EventLog,
    ) -> None:
        super().__init__(event_log)
        self._detacher = detacher
        self._directory = directory
        self._attachments = attachments
        self._pending: dict[str, Attachment] = {}  # by endpoint; attachments are bounded themselves

    async def undo(self, attachment: Attachment, endpoint: Endpoint) -> bool:
        """Roll back an attach that made no interface, now or later; return whether it is done."""
        return await self._try(attachment, lambda: self._detacher.undo(attachment, endpoint))

    async def remove(self, attachment: Attachment) -> bool:
        """Detach what was attached completely, now or later; return whether it is done."""
        return await self._try(attachment, lambda: self._detacher.remove(attachment, wait=False))

    async def _try(self, attachment: Attachment, work: Callable[[], Awaitable[object]]) -> bool:
        try:
            await work()
        except OverlayError as error:
            self._pending[attachment.endpoint_id] = attachment
            self.trigger()
            text = f"{attachment.target} is not rolled back yet: {error.what}: {error.why}"
            self._event_log.record("state", text, level=logging.ERROR)
            return False
        return True

    def owes(self, identity: tuple[int, int]) -> bool:
        """Return whether a rollback is pending for one container."""
        return any(each.netns_identity == identity for each in self._pending.values())

    async def roll_back_owed(self, identity: tuple[int, int]) -> None:
        """Roll back what is pending of one container; the caller holds its lock.

        Raises OverlayError if the disk rejects it again.
        """
        for endpoint_id, attachment in list(self._pending.items()):
            if attachment.netns_identity != identity:
                continue
            endpoint = self._directory.endpoint_of(attachment)
            if bytes.fromhex(endpoint_id) in self._attachments:
                await self._detacher.remove(attachment, wait=False)
            elif endpoint is not None:
                await self._detacher.undo(attachment, endpoint)
            self._pending.pop(endpoint_id, None)

    async def reconcile(self) -> None:
        """Roll back everything that is pending."""
        for identity in {each.netns_identity for each in self._pending.values()}:
            async with self._attachments.alone_with(identity):
                await self.roll_back_owed(identity)
