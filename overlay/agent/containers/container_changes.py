"""Which containers have changed since they were last looked at, as far as the kernel tells.

Owns: the monitor of their namespaces, and how often it is read. What a container does in its
namespace costs the event loop one wake-up per reading, however much it is.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import TypeAlias

from overlay import limits
from overlay.agent.process.kernel_thread import KernelThread
from overlay.kernel.containers.container_monitor import ContainerMonitor
from overlay.kernel.netlink.socket import LostNotificationsError

_Identity: TypeAlias = tuple[int, int]


class ContainerChanges:
    """Calls `wake` some time after a container that is followed has changed."""

    def __init__(self, kernel: KernelThread, wake: Callable[[], None]) -> None:
        self._kernel = kernel
        self._wake = wake
        self._monitor: ContainerMonitor | None = None
        self._followed: set[_Identity] = set()
        self._timer: asyncio.TimerHandle | None = None  # of a rest, or until changes have settled
        self._is_hastened = False

    @contextlib.asynccontextmanager
    async def watched(self) -> AsyncIterator[None]:
        """Have the kernel tell of changes during the block, if it lets this process know them."""
        self._monitor = await self._kernel.call(ContainerMonitor.open)
        try:
            self._listen()
            yield
        finally:
            await self._replace(None)

    @property
    def are_told(self) -> bool:
        """Whether the kernel tells of changes at all."""
        return self._monitor is not None

    def unfollowed(self, identities: set[_Identity]) -> set[_Identity]:
        """Return those of some containers whose changes are not told."""
        return identities - self._followed

    async def follow(self, containers: Sequence[tuple[str, _Identity]]) -> None:
        """Follow some containers as well, each by its path and identity."""
        monitor = self._monitor
        if monitor is not None and containers:
            found = await self._kernel.call(monitor.follow, containers)
            if monitor is self._monitor:  # not replaced meanwhile
                self._followed |= found

    async def keep(self, identities: set[_Identity]) -> None:
        """Follow none but these; none for now if others are heard again and again.

        Of a namespace that was followed the kernel tells as long as the monitor is open.
        """
        if self._monitor is None:
            return
        if self._monitor.strangers_heard >= limits.CONTAINER_STRANGERS_HEARD_MAX:
            other = await self._kernel.call(ContainerMonitor.open)
            if other is not None:
                await self._replace(other)
        elif not self._followed <= identities:
            self._followed &= identities
            await self._kernel.call(self._monitor.keep, identities)

    async def _replace(self, other: ContainerMonitor | None) -> None:
        self._pause()
        former, self._monitor, self._followed = self._monitor, other, set()
        if former is not None:
            await self._kernel.call(former.close)

    def hasten(self) -> None:
        """Call `wake` as if a container that is followed had changed."""
        self._is_hastened = True
        if self._monitor is not None and self._timer is None:
            self._on_readable()

    def taken(self) -> set[_Identity] | None:
        """Return the containers that have changed since the last call; None if any may have.

        `wake` is not called before the end of the `rest` that has to follow.
        """
        self._pause()
        self._is_hastened = False
        if self._monitor is None:
            return None
        try:
            return self._monitor.changed()
        except LostNotificationsError:
            return None

    def rest(self, rest_s: float) -> None:
        """Do not call `wake` within the next `rest_s` seconds."""
        self._pause()
        if self._monitor is not None:
            self._timer = asyncio.get_running_loop().call_later(rest_s, self._listen)

    def _listen(self) -> None:
        self._timer = None
        if self._is_hastened:
            self._on_readable()
        elif self._monitor is not None:
            loop = asyncio.get_running_loop()
            loop.add_reader(self._monitor.fileno(), self._on_readable)

    def _on_readable(self) -> None:
        self._pause()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(limits.CONTAINER_CHANGE_SETTLE_S, self._wake)

    def _pause(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._monitor is not None:
            asyncio.get_running_loop().remove_reader(self._monitor.fileno())
