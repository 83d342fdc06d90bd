"""Attaches that are taken back, also where the disk refuses that at first.

What made an attach fail is what its caller must read, and what could not be taken back for now is
owed: it goes as soon as it can be written. After a start it is attached as the state says. Owns:
what is owed. Must not know: what an attach or a detach consists of.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from overlay.agent.endpoints.detach import EndpointDetacher
from overlay.agent.process.event_log import EventLog
from overlay.agent.records.directory import Directory
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.errors import OverlayError
from overlay.model import Endpoint


class Rollback:
    """The attachments of this node that were to go, and are still there."""

    def __init__(
        self,
        detacher: EndpointDetacher,
        directory: Directory,
        attachments: Attachments,
        event_log: EventLog,
    ) -> None:
        self._detacher = detacher
        self._directory = directory
        self._attachments = attachments
        self._event_log = event_log
        self._pending: dict[str, Attachment] = {}  # by endpoint; attachments are bounded themselves
        self._has_pending = asyncio.Event()

    async def undo(self, attachment: Attachment, endpoint: Endpoint) -> bool:
        """Take back what got no interface, or owe it; say whether it is gone."""
        return await self._try(attachment, lambda: self._detacher.undo(attachment, endpoint))

    async def remove(self, attachment: Attachment) -> bool:
        """Take back what was attached already, or owe it; say whether it is gone."""
        return await self._try(attachment, lambda: self._detacher.remove(attachment, wait=False))

    async def _try(self, attachment: Attachment, work: Callable[[], Awaitable[object]]) -> bool:
        try:
            await work()
        except OverlayError as error:
            self._pending[attachment.endpoint_id] = attachment
            self._has_pending.set()
            text = f"{attachment.target} is not taken back yet: {error.what}: {error.why}"
            self._event_log.record("state", text, level=logging.ERROR)
            return False
        return True

    async def roll_back_owed(self, identity: tuple[int, int]) -> None:
        """Take back what is owed of one container; for who is alone with it. Raises OverlayError
        if that is refused again."""
        for endpoint_id, attachment in list(self._pending.items()):
            if attachment.netns_identity != identity:
                continue
            endpoint = self._directory.endpoint_of(attachment)
            if bytes.fromhex(endpoint_id) in self._attachments:
                await self._detacher.remove(attachment, wait=False)
            elif endpoint is not None:
                await self._detacher.undo(attachment, endpoint)
            self._pending.pop(endpoint_id, None)

    async def run(self) -> None:
        """Take back what is owed, until cancelled; begun anew after a pause when it raises."""
        while True:
            await self._has_pending.wait()
            for identity in {each.netns_identity for each in self._pending.values()}:
                async with self._attachments.alone_with(identity):
                    await self.roll_back_owed(identity)
            self._has_pending.clear()
