"""Choose backends at connect(2) where the kernel and the configuration let it.

It spares TCP connections the translation of each packet. The clients' tables are there all the
same, so whatever it does not do, they do: a container that it cannot follow is left to its table.

Owns: whether it is in use, and why not; which containers it leads. Does not: decide which ports a
container may reach (`client_tables`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import NamedTuple, TypeAlias

from overlay.agent.gossip.context import NodeContext
from overlay.core.services.values import VirtualPort
from overlay.errors import OverlayError
from overlay.kernel.services.connect_hook import ConnectHook
from overlay.kernel.services.connection_moves import Move
from overlay.model import Ip

OFF = "switched off by the configuration"
_NOT_YET = "not started yet"
_log = logging.getLogger(__name__)
_Identity: TypeAlias = tuple[int, int]


class LedContainer(NamedTuple):
    """A container, where its namespace is, and the ports that its connections are led from.

    A port that has not changed is the same object, so that comparing costs little.
    """

    path: str
    identity: _Identity
    ports: tuple[VirtualPort, ...]


class ConnectChoice:
    """The programs of this agent; `why` is the reason where there are none.

    `left` are containers whose connections are left to their tables by an error, with its text.
    """

    def __init__(self, context: NodeContext, mode: str) -> None:
        self.mode = mode
        self.why = OFF if mode == "off" else _NOT_YET
        self._kernel = context.kernel
        self._node_id = context.gossip.node_id
        self._hook: ConnectHook | None = None
        self._led: dict[_Identity, tuple[VirtualPort, ...]] = {}
        self.left: dict[_Identity, str] = {}

    @property
    def known(self) -> set[_Identity]:
        """Return the containers that are led, or should be."""
        return {*self._led, *self.left}

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Have the programs for the duration of the block."""
        if self.mode != "off":
            try:
                self._hook = await self._kernel.call(ConnectHook, self._node_id)
                self.why = ""
            except (OverlayError, OSError) as error:
                self.why = getattr(error, "strerror", None) or str(error)
        try:
            yield
        finally:
            if self._hook is not None:
                self._end(_NOT_YET)

    async def follow(self, containers: Iterable[LedContainer]) -> None:
        """Lead the connections of containers to the backends of these ports, unless they are.

        All of them in one call of the kernel thread. One that fails costs no other anything: it is
        left to its table, until a later call succeeds.
        """
        changed = [
            each
            for each in containers
            if self._led.get(each.identity, ()) != each.ports or each.identity in self.left
        ]
        if self._hook is None or not changed:
            return
        try:
            failed = await self._kernel.call(_lead, self._hook, changed)
        except OSError as error:  # what the programs know may be outdated, and stays so
            self._end(error.strerror or str(error))
            _log.warning("backends are no longer chosen at connect(2): %s", error)
            return
        for _, identity, ports in changed:
            self._led.pop(identity, None)
            self.left.pop(identity, None)
            if identity in failed:
                self.left[identity] = failed[identity]
            elif ports:
                self._led[identity] = ports

    async def unanswered(
        self,
        path: str,
        identity: _Identity,
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

    def _end(self, why: str) -> None:
        """Leave everything to the tables."""
        if self._hook is not None:
            hook, self._hook, self.why = self._hook, None, why
            hook.close()
        self._led.clear()
        self.left.clear()


def _lead(hook: ConnectHook, containers: Sequence[LedContainer]) -> dict[_Identity, str]:
    """Lead containers; return those that are led nowhere now, with the error's text.

    Raises OSError if one is still led as it was.
    """
    failed: dict[_Identity, str] = {}
    for path, identity, ports in containers:
        try:
            if ports:
                hook.lead(path, identity, ports)
            else:
                hook.forget(identity)
        except (OverlayError, OSError) as error:
            hook.forget(identity)
            failed[identity] = (error.strerror if isinstance(error, OSError) else "") or str(error)
    return failed


def _place(port: VirtualPort) -> tuple[Ip, int]:
    return port.ip, port.port
