"""Attaches that are under way while Docker does something else.

Docker makes several calls about an endpoint, one after the other, and between them its own work
takes about as long as an attach. So the attach begins with the first of them, `Join` waits until
the interface is there, and a later call until all live hosts have confirmed that they reach it.

Owns: the attaches under way. Does not: attach (`endpoints.runtime_endpoints`).
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass

from overlay.agent.endpoints.runtime_endpoints import RuntimeEndpoints
from overlay.agent.endpoints.spec import EndpointOptions
from overlay.agent.process.tasks import cancel_all
from overlay.agent.runtimes.targets import Target
from overlay.model import Network


@dataclass(slots=True)
class _UnderWay:
    """One attach: its task, whether the interface is there, and whether Docker has joined it."""

    task: asyncio.Task[None]
    programmed: asyncio.Event
    joined: bool = False


class EarlyAttaches:
    """The attaches that Docker's calls have begun, by Docker's id of the endpoint."""

    def __init__(self, offered: RuntimeEndpoints) -> None:
        self._offered = offered
        self._under_way: dict[str, _UnderWay] = {}  # also one that failed, until that is reported

    def begin(self, target: Target, network: Network, options: EndpointOptions) -> None:
        """Begin to attach a container that is still to come, unless that is done or under way.

        The target is closed in the end.
        """
        endpoint_id = target.runtime_endpoint
        if endpoint_id in self._under_way or self._offered.find(endpoint_id) is not None:
            target.close()
            return
        programmed = asyncio.Event()
        attach = self._attach(target, network, options, programmed)
        task = asyncio.create_task(attach, name="docker attach")
        task.add_done_callback(_note_end)
        self._under_way[endpoint_id] = _UnderWay(task, programmed)

    async def _attach(
        self, target: Target, network: Network, options: EndpointOptions, programmed: asyncio.Event
    ) -> None:
        with contextlib.closing(target):
            await self._offered.attach(target, network, options, programmed=programmed)
        self._under_way.pop(target.runtime_endpoint, None)

    async def join(self, endpoint_id: str) -> None:
        """Return when an endpoint's interface is there; raises the error of an attach that failed.

        Then nothing is attached, and the next attach begins anew.
        """
        found = self._under_way.get(endpoint_id)
        if found is None:
            return
        found.joined = True
        reached = asyncio.create_task(found.programmed.wait())
        try:
            await asyncio.wait({found.task, reached}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            reached.cancel()
        if found.task.done():
            self._under_way.pop(endpoint_id, None)
            found.task.result()

    async def until_confirmed(self, endpoint_id: str) -> None:
        """Return when the attach of an endpoint that Docker has joined has ended."""
        found = self._under_way.get(endpoint_id)
        if found is not None and found.joined:
            await asyncio.wait({found.task})

    async def forget(self, endpoint_id: str) -> None:
        """Wait for the end of an attach, and forget it: the endpoint is deleted next."""
        found = self._under_way.get(endpoint_id)
        if found is not None:
            await asyncio.wait({found.task})
            self._under_way.pop(endpoint_id, None)

    async def run(self) -> None:
        """Wait until cancelled, and then cancel what is under way."""
        try:
            await asyncio.Event().wait()
        finally:
            await cancel_all([each.task for each in self._under_way.values()])


def _note_end(task: asyncio.Task[None]) -> None:
    """Take the error of an attach: nobody asks for that of an endpoint that Docker gives up."""
    if not task.cancelled():
        task.exception()
