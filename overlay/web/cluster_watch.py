"""Follow the cluster while a page is open: ask the agent again and again, and pass on its events.

One watch serves all pages, so that the agent has no more work with many of them. While none is
open, the agent is not asked at all.
"""

from __future__ import annotations

import asyncio
import collections
import contextlib
import logging
import time

from overlay import limits
from overlay.agent.process.tasks import cancel_all
from overlay.client.api import JsonObject
from overlay.errors import OverlayError, defect_error
from overlay.web.agent_link import AgentLink
from overlay.web.page_items import PageItems, change
from overlay.web.streams import PageStream, PageStreams, encoded

_LOG = logging.getLogger("overlayd.web")
_EVENTS_SINCE_S = 3600.0  # the events that a page shows at first
_AGAIN_S = 1.0
_PAUSE_MIN_S = 0.5  # also after an event: others follow it
_SILENCE_S = 10.0  # without news a comment tells whether the page is still there


class ClusterWatch:
    """The newest state of the cluster, for the pages that are open."""

    def __init__(self, link: AgentLink, streams: PageStreams) -> None:
        self._link = link
        self._streams = streams
        self._page_items = PageItems()
        self._items: dict[str, JsonObject] = {}
        self._seen_at: float | None = None  # when the agent answered last
        self._problem: JsonObject | None = None
        self._events: collections.deque[JsonObject] = collections.deque(
            maxlen=limits.WEB_EVENTS_MAX
        )
        self._hint = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to follow."""
        loop = asyncio.get_running_loop()
        self._tasks = [loop.create_task(work()) for work in (self._look, self._follow, self._tick)]

    async def close(self) -> None:
        """Stop."""
        await cancel_all(self._tasks)

    def greet(self, stream: PageStream) -> None:
        """Send the whole state to a page that has just been opened."""
        if self._seen_at is not None or self._problem is not None:
            stream.put(encoded("state", self.state()))
        self._hint.set()

    def state(self) -> JsonObject:
        """Return the whole state, as a page gets it first."""
        return {
            "items": self._items,
            "events": list(self._events),
            "problem": self._problem,
            "seen_at": self._seen_at,
        }

    # --- the state ----------------------------------------------------------------------

    async def _look(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._streams.wanted.wait()
            self._hint.clear()
            started = loop.time()
            await self.refresh()
            took_s = loop.time() - started
            pause_s = max(limits.WEB_POLL_INTERVAL_S, took_s / limits.WEB_POLL_SHARE_MAX)
            await asyncio.sleep(max(_PAUSE_MIN_S, took_s))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._hint.wait()

    async def refresh(self) -> None:
        """Ask the agent, and publish what has changed."""
        is_first = self._seen_at is None and self._problem is None
        try:
            items = self._page_items.make(await self._link.look(), time.time())
        except OverlayError as error:
            self._report(error)
            return
        except Exception as error:  # noqa: BLE001 - a defect must not look like a cluster at rest
            _LOG.exception("defect while reading the agent's answers")
            self._report(defect_error("the page", error))
            return
        changed = change(self._items, items)
        had_problem, self._problem = self._problem is not None, None
        self._items, self._seen_at = items, time.time()
        if is_first or had_problem:
            self._streams.publish("state", self.state())
        elif changed.put or changed.drop:
            self._streams.publish("change", {**changed._asdict(), "seen_at": self._seen_at})

    def _report(self, error: OverlayError) -> None:
        problem = error.body()
        if problem != self._problem:
            self._problem = problem
            self._streams.publish("problem", {"problem": problem, "seen_at": self._seen_at})

    # --- events -------------------------------------------------------------------------

    async def _follow(self) -> None:
        while True:
            await self._streams.wanted.wait()
            with contextlib.suppress(OverlayError):  # `_look` reports an agent that is away
                since = self._events[-1]["time"] if self._events else time.time() - _EVENTS_SINCE_S
                async for event in self._link.events(since):
                    if event not in self._events:
                        self._events.append(event)
                        self._streams.publish("happened", event)
                        self._hint.set()
                    if not self._streams:
                        break
            await asyncio.sleep(_AGAIN_S)

    async def _tick(self) -> None:
        """Write to silent pages, so that those that have gone are noticed."""
        while True:
            await asyncio.sleep(_SILENCE_S)
            self._streams.publish("tick", {"seen_at": self._seen_at})
