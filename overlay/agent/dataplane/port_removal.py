"""Remove ports of one sandbox, many of them in one call to the kernel.

Owns: the queue of ports to remove. Does not: know endpoints or records.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final, TypeAlias

from overlay.kernel.sandbox import veth
from overlay.kernel.sandbox.sandbox import Sandbox

Removals: TypeAlias = Mapping[str, asyncio.Future[bool]]
_CALLS_MAX: Final = 2
"""Calls to the kernel at a time: ports of the next one need not wait until it has answered."""


class PortRemoval:
    """Removes ports of one sandbox.

    The kernel waits 10 to 30 ms for its RCU grace period at each removal, however many ports it
    removes (measured): ports that are queued meanwhile go together in the next one. A port counts
    as removed once the kernel says that it is gone, which is before that wait.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._wanted: dict[str, asyncio.Future[bool]] = {}
        self._work: asyncio.Task[None] | None = None
        self._calls: set[asyncio.Task[None]] = set()

    async def remove(self, port: str) -> bool:
        """Remove a port; return False if there was none. Raises OSError or OverlayError."""
        loop = asyncio.get_running_loop()
        found = self._wanted.get(port)
        if found is None:
            found = self._wanted[port] = loop.create_future()
        if self._work is None or self._work.done():
            self._work = loop.create_task(self._remove_all())
        return await asyncio.shield(found)

    async def _remove_all(self) -> None:
        while self._wanted:
            if len(self._calls) >= _CALLS_MAX:
                await asyncio.wait(self._calls, return_when=asyncio.FIRST_COMPLETED)
            wanted, self._wanted = self._wanted, {}
            call = asyncio.create_task(self._call(wanted))
            self._calls.add(call)
            call.add_done_callback(self._calls.discard)
            await asyncio.wait(wanted.values())

    async def _call(self, wanted: Removals) -> None:
        loop = asyncio.get_running_loop()

        def when_gone(port: str) -> None:
            loop.call_soon_threadsafe(_settle, wanted[port], True)

        try:
            # Not in the kernel thread, which other work waits for.
            gone = await asyncio.to_thread(
                veth.detach_interfaces, self._sandbox, list(wanted), when_gone
            )
        except Exception as error:  # noqa: BLE001 - whoever removes these ports raises it
            for future in wanted.values():
                if not future.done():
                    future.set_exception(error)
        else:
            for port, future in wanted.items():
                _settle(future, port in gone)


def _settle(future: asyncio.Future[bool], result: bool) -> None:
    if not future.done():
        future.set_result(result)
