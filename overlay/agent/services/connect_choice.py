"""Choose backends at connect(2) where the kernel and the configuration let it.

It spares TCP connections the translation of each packet. The clients' tables are there all the
same, so whatever it does not do, they do: nothing here is a fault.

Owns: whether it is in use, and why not. Does not: decide which ports a container may reach
(`client_tables`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Sequence

from overlay.agent.gossip.context import NodeContext
from overlay.core.services.values import VirtualPort
from overlay.errors import OverlayError
from overlay.kernel.services.connect_hook import ConnectHook
from overlay.kernel.services.connection_moves import Move
from overlay.model import Ip

OFF = "switched off by the configuration"
_NOT_YET = "not started yet"
_log = logging.getLogger(__name__)


class ConnectChoice:
    """The programs of this agent; `why` is the reason where there are none."""

    def __init__(self, context: NodeContext, mode: str) -> None:
        self.mode = mode
        self.why = OFF if mode == "off" else _NOT_YET
        self._kernel = context.kernel
        self._node_id = context.gossip.node_id
        self._hook: ConnectHook | None = None

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have the programs for the duration of the block."""
        if self.mode != "off":
            try:
                self._hook = await self._kernel.call(ConnectHook, self._node_id)
                self.why = ""
            except OSError as error:
                self.why = error.strerror or str(error)
        try:
            yield
        finally:
            if self._hook is not None:
                hook, self._hook, self.why = self._hook, None, _NOT_YET
                hook.close()

    async def follow(
        self, path: str, identity: tuple[int, int], ports: Sequence[VirtualPort]
    ) -> None:
        """Lead the connections of a container to the backends of these ports."""
        if self._hook is None:
            return
        try:
            if ports:
                await self._kernel.call(self._hook.lead, path, identity, ports)
            else:
                await self._kernel.call(self._hook.forget, identity)
        except (OverlayError, OSError) as error:
            self._give_up(str(error))

    async def unanswered(
        self,
        path: str,
        identity: tuple[int, int],
        losing: Iterable[VirtualPort],
        after: Sequence[VirtualPort],
    ) -> list[Move]:
        """Return a container's connections that a backend which is gone will not answer.

        With each, who may answer instead; `losing` are the ports that have lost a backend.
        """
        now = {_place(each): each for each in after if each.protocol == "tcp"}
        lost = {_place(each): now.get(_place(each)) for each in losing if each.protocol == "tcp"}
        if self._hook is None or not lost:
            return []
        return await self._kernel.call(self._hook.unanswered, path, identity, lost)

    def _give_up(self, why: str) -> None:
        """Leave everything to the tables: what the programs know may be outdated."""
        if self._hook is not None:
            self._hook.close()
            self._hook, self.why = None, why
            _log.warning("backends are no longer chosen at connect(2): %s", why)


def _place(port: VirtualPort) -> tuple[Ip, int]:
    return port.ip, port.port
