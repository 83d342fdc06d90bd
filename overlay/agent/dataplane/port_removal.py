"""Remove ports of one sandbox, many of them in one call to the kernel.

Owns: the queue of ports to remove. Does not: know endpoints or records.
"""

from __future__ import annotations

import asyncio

from overlay.errors import OverlayError
from overlay.kernel.sandbox import veth
from overlay.kernel.sandbox.sandbox import Sandbox


class PortRemoval:
    """Removes ports of one sandbox.

    The kernel waits 20 ms for its RCU grace period at each removal, however many ports it removes
    (measured): ports that are queued meanwhile go together in the next one.
    """

    def __init__(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox
        self._wanted: dict[str, asyncio.Future[bool]] = {}
        self._work: asyncio.Task[None] | None = None

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
            wanted, self._wanted = self._wanted, {}
            try:
                # Not in the kernel thread, which other work waits for.
                gone = await asyncio.to_thread(veth.detach_interfaces, self._sandbox, list(wanted))
            except (OSError, OverlayError) as error:
                for future in wanted.values():
                    future.set_exception(error)
            else:
                for port, future in wanted.items():
                    future.set_result(port in gone)
