"""Endpoints whose interface the kernel has lost: plugged in again, or withdrawn.

Owns: telling a container that ended from an interface that somebody deleted. Must not know
how the loss was noticed.
"""

from __future__ import annotations

import asyncio
import os

from overlay.agent.endpoints.attach import Attaching
from overlay.agent.endpoints.detach import Detaching
from overlay.agent.endpoints.restart import Returning
from overlay.agent.process.event_log import Journal
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.records.directory import Directory
from overlay.agent.state.attachments import Attachments
from overlay.agent.state.documents import Attachment
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.model import Endpoint, Network


class Lost:
    """Follows up lost ports, those reported meanwhile included."""

    def __init__(
        self,
        directory: Directory,
        attaching: Attaching,
        detaching: Detaching,
        returning: Returning,
        attachments: Attachments,
        kernel: KernelThread,
        journal: Journal,
    ) -> None:
        self._directory = directory
        self._attaching = attaching
        self._detaching = detaching
        self._returning = returning
        self._attachments = attachments
        self._kernel = kernel
        self._journal = journal
        self._ports: dict[str, None] = {}  # in order of their loss
        self._working: asyncio.Task[None] | None = None

    def report(self, ports: list[str]) -> None:
        """Note that ports are gone; what became of them is seen outside the pass that noticed."""
        self._ports.update(dict.fromkeys(ports))
        if self._working is None or self._working.done():
            self._working = asyncio.get_running_loop().create_task(self._work(), name="lost")

    async def close(self) -> None:
        """Stop following up."""
        if self._working is not None:
            self._working.cancel()
            await asyncio.gather(self._working, return_exceptions=True)

    async def _work(self) -> None:
        while self._ports:
            port = next(iter(self._ports))
            del self._ports[port]
            for attachment in [a for a in self._attachments.values() if a.port == port]:
                try:
                    async with self._attachments.alone_with(attachment.netns_identity):
                        ended = await self._recover(attachment.endpoint_id)
                    if ended is not None:  # perhaps its container runs again already
                        await self._returning.started(ended)
                except (OverlayError, OSError) as error:
                    self._journal.record("gone", f"{attachment.target}: {error}")

    async def _recover(self, endpoint_id: str) -> str | None:
        """Plug in again what still lives, else withdraw it; return the id of a container that is
        remembered, for it may start again."""
        attachment = self._attachments.get(bytes.fromhex(endpoint_id))
        if attachment is None:
            return None  # detached meanwhile
        network = self._directory.network_by_vni(attachment.vni)
        endpoint = self._directory.attached(attachment)
        descriptor = await self._kernel.call(
            netns.open_same, attachment.netns_path, attachment.netns_identity
        )
        if descriptor is None or network is None or endpoint is None:
            return await self._withdraw(attachment, network, endpoint)
        try:
            # What comes and goes with an interface of the host's is tried again, not given up.
            again = bool(attachment.parent)
            await self._attaching.plug(network, endpoint, attachment, descriptor, again=again)
        finally:
            os.close(descriptor)
        self._journal.record(
            "repaired",
            f"{attachment.target} is plugged in again",
            network=network.name,
            endpoint=endpoint.name,
        )
        return None

    async def _withdraw(
        self, attachment: Attachment, network: Network | None, endpoint: Endpoint | None
    ) -> str | None:
        """Take back an ended container's endpoint; remember it where its runtime may start it, and
        return its id then."""
        self._journal.record(
            "gone",
            f"{attachment.target} ended",
            network=f"vni {attachment.vni}" if network is None else network.name,
            endpoint=attachment.target if endpoint is None else endpoint.name,
        )
        if endpoint is None or not self._returning.remembers(attachment):
            await self._detaching.remove(attachment, wait=False)
            return None
        await self._detaching.remove(
            attachment, wait=False, also=lambda: self._returning.put(attachment, endpoint)
        )
        return attachment.container_id
