"""Handler for events: recent ones, and new ones as a stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

from overlay import limits
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema.cluster import EventListResponse, EventResponse, EventsRequest
from overlay.agent.lifecycle import AgentLifecycle

Json = dict[str, Any]


class EventHandlers:
    """The handler for events, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def events(self, query: EventsRequest) -> Json | AsyncGenerator[Json | None, None]:
        """GET /v1/events[?since=SECONDS][&follow=1]."""
        if query.follow == "1":
            return self._follow(query.since)
        return {"events": self._agent.event_log.since(query.since)}

    async def _follow(self, since: float) -> AsyncGenerator[Json | None, None]:
        """Yield the events since a time, then each new one, and None while there is none."""
        queue: asyncio.Queue[Json] = asyncio.Queue(limits.RECENT_EVENTS_MAX)

        def add(event: Json) -> None:
            if not queue.full():  # a client that does not read loses events; memory is bounded
                queue.put_nowait(event)

        stop = self._agent.event_log.follow(add)
        try:
            for event in self._agent.event_log.since(since):
                yield event
            while not self._agent.stopping.is_set():
                try:
                    async with asyncio.timeout(limits.FOLLOWER_CHECK_INTERVAL_S):
                        found = await queue.get()
                except TimeoutError:
                    yield None
                else:
                    yield found
        finally:
            stop()


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Register the route of this module."""
    server.route(
        "GET",
        "/v1/events",
        "events",
        EventHandlers(agent).events,
        query=EventsRequest,
        response=EventListResponse,
        stream=EventResponse,
        works_unjoined=True,
    )
