"""When the monitor of containers is read, and what it wakes."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

import pytest
from overlay import limits
from overlay.agent.containers.container_changes import ContainerChanges
from overlay.kernel.containers.container_monitor import ContainerMonitor
from overlay.kernel.netlink.socket import LostNotificationsError

WEB, DB = (4, 5), (4, 6)
REST_S = 3600.0  # longer than any test


class Monitor:
    """A monitor that a test has tell of changes."""

    def __init__(self) -> None:
        self.waiting: set[tuple[int, int]] = set()
        self.is_lost = False
        self.is_closed = False
        self.strangers_heard = 0
        self.reads = 0
        self.refused: set[tuple[int, int]] = set()
        self.kept: set[tuple[int, int]] = set()
        self._reader, self._writer = os.pipe()

    def tell(self, identity: tuple[int, int]) -> None:
        """Tell of a change."""
        self.waiting.add(identity)
        os.write(self._writer, b"1")

    def fileno(self) -> int:
        """Return what becomes readable."""
        return self._reader

    def changed(self) -> set[tuple[int, int]]:
        """Return what was told."""
        self.reads += 1
        if self.waiting:
            os.read(self._reader, 4096)
        found, self.waiting = self.waiting, set()
        if self.is_lost:
            self.is_lost = False
            raise LostNotificationsError
        return found

    def follow(self, containers: list[tuple[str, tuple[int, int]]]) -> set[tuple[int, int]]:
        """Follow them, but for some."""
        return {identity for _, identity in containers} - self.refused

    def keep(self, identities: set[tuple[int, int]]) -> None:
        """Remember what is kept."""
        self.kept = identities

    def close(self) -> None:
        """Close the pipe."""
        self.is_closed = True
        os.close(self._reader)
        os.close(self._writer)


class Kernel:
    """Calls functions at once."""

    async def call(self, function: Callable[..., Any], *args: object) -> Any:
        """Call one."""
        return function(*args)


class Woken:
    """Changes of containers whose wake-ups are counted."""

    def __init__(self, monitor: Monitor) -> None:
        self.monitor = monitor
        self.count = 0
        self.event = asyncio.Event()
        self.changes = ContainerChanges(cast("Any", Kernel()), self._wake)

    def _wake(self) -> None:
        self.count += 1
        self.event.set()

    def take(self, rest_s: float) -> set[tuple[int, int]] | None:
        """Take what has changed, and rest."""
        found = self.changes.taken()
        self.changes.rest(rest_s)
        return found

    async def wait(self) -> None:
        """Wait until the next wake-up."""
        async with asyncio.timeout(30):
            await self.event.wait()
        self.event.clear()

    async def settle(self) -> None:
        """Let the event loop do all that it has to do now."""
        for _ in range(5):
            await asyncio.sleep(0.001)


@pytest.fixture
async def woken(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Woken]:
    """Return changes that settle at once."""
    monitor = Monitor()
    monkeypatch.setattr(limits, "CONTAINER_CHANGE_SETTLE_S", 0.0)
    monkeypatch.setattr(ContainerMonitor, "open", lambda: monitor)
    found = Woken(monitor)
    async with found.changes.watched():
        yield found


async def test_many_changes_wake_once(woken: Woken) -> None:
    """And nothing is read until somebody takes what has changed."""
    woken.monitor.tell(WEB)
    await woken.wait()
    woken.monitor.tell(DB)
    await woken.settle()
    assert (woken.count, woken.monitor.reads) == (1, 0)
    assert woken.take(REST_S) == {WEB, DB}


async def test_a_rest_is_kept(woken: Woken) -> None:
    """Root in a container may change something all the time; what did waits for the rest's end."""
    assert woken.take(REST_S) == set()
    woken.monitor.tell(WEB)
    await woken.settle()
    assert woken.count == 0

    assert woken.take(0.0) == {WEB}  # looked at all meanwhile
    woken.monitor.tell(DB)
    await woken.wait()
    assert woken.take(REST_S) == {DB}


async def test_a_new_container_waits_for_the_rests_end(woken: Woken) -> None:
    """It wakes although nothing of it can be told yet."""
    woken.changes.hasten()
    await woken.wait()
    assert woken.take(0.0) == set()
    woken.changes.hasten()  # before the rest has ended
    await woken.wait()
    woken.take(REST_S)
    woken.changes.hasten()
    await woken.settle()
    assert woken.count == 2


async def test_after_lost_notifications_any_may_have_changed(woken: Woken) -> None:
    """Once: what comes after is told again."""
    woken.monitor.is_lost = True
    woken.monitor.tell(WEB)
    assert woken.take(0.0) is None
    woken.monitor.tell(DB)
    await woken.wait()
    assert woken.take(REST_S) == {DB}


async def test_what_cannot_be_opened_is_not_followed(woken: Woken) -> None:
    """So it is tried again; one that is detached is forgotten."""
    woken.monitor.refused = {DB}
    await woken.changes.follow([("/web", WEB), ("/db", DB)])
    assert woken.changes.unfollowed({WEB, DB}) == {DB}
    woken.monitor.refused = set()
    await woken.changes.follow([("/db", DB)])
    assert woken.changes.unfollowed({WEB, DB}) == set()
    await woken.changes.keep({WEB})
    assert woken.changes.unfollowed({WEB, DB}) == {DB}
    assert woken.monitor.kept == {WEB}


async def test_one_that_tells_of_strangers_is_replaced(
    woken: Woken, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After some readings, if another can be had; then all are followed again."""
    former, other = woken.monitor, Monitor()
    await woken.changes.follow([("/web", WEB)])
    former.strangers_heard = limits.CONTAINER_STRANGERS_HEARD_MAX - 1
    await woken.changes.keep({WEB})
    assert woken.changes.unfollowed({WEB}) == set()
    former.strangers_heard += 1
    monkeypatch.setattr(ContainerMonitor, "open", lambda: None)  # the host is short of memory
    await woken.changes.keep({WEB})
    assert woken.changes.unfollowed({WEB}) == set()
    woken.take(0.0)
    monkeypatch.setattr(ContainerMonitor, "open", lambda: other)
    await woken.changes.keep({WEB})
    assert former.is_closed
    assert woken.changes.unfollowed({WEB}) == {WEB}
    woken.changes.rest(0.0)
    other.tell(WEB)
    await woken.wait()
    assert woken.take(REST_S) == {WEB}


async def test_nothing_is_told_without_a_monitor(monkeypatch: pytest.MonkeyPatch) -> None:
    """Then any may have changed, and nothing wakes."""
    monkeypatch.setattr(ContainerMonitor, "open", lambda: None)
    woken = Woken(Monitor())
    async with woken.changes.watched():
        assert not woken.changes.are_told
        woken.changes.hasten()
        await woken.changes.follow([("/web", WEB)])
        await woken.settle()
        assert woken.take(0.0) is None
        assert woken.changes.unfollowed({WEB}) == {WEB}
    assert woken.count == 0
    woken.monitor.close()
