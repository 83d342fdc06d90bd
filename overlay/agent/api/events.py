"""The API's verb on events: those of late, and those to come, as a stream."""

from __future__ import annotations

import asyncio
import contextlib
import json
from typing import Any

from overlay import limits
from overlay.agent.api.http.server import ApiServer
from overlay.agent.api.schema import fields, requests, responses
from overlay.agent.lifecycle import AgentLifecycle
from overlay.agent.process.lean_aiohttp import web

Json = dict[str, Any]


class EventRoutes:
    """The verb, bound to one agent."""

    def __init__(self, agent: AgentLifecycle) -> None:
        self._agent = agent

    async def events(self, http: web.Request, _body: Json) -> Json | web.StreamResponse:
        """GET /v1/events[?since=SECONDS][&follow=1]."""
        since = fields.query_time(dict(http.query), "since")
        if not fields.query_flag(dict(http.query), "follow"):
            return {"events": self._agent.event_log.since(since)}
        return await self._follow(http, since)

    async def _follow(self, http: web.Request, since: float) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        await response.prepare(http)
        queue: asyncio.Queue[Json] = asyncio.Queue(limits.RECENT_EVENTS_MAX)

        def take(event: Json) -> None:
            if not queue.full():  # a reader that does not read loses events, not our memory
                queue.put_nowait(event)

        stop = self._agent.event_log.follow(take)
        try:
            for event in self._agent.event_log.since(since):
                await response.write(json.dumps(event).encode() + b"\n")
            # Nobody tells a verb that its reader has gone: without events, it looks.
            while not self._agent.stopping.is_set() and http.transport is not None:
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(limits.FOLLOWER_CHECK_INTERVAL_S):
                        event = await queue.get()
                    await response.write(json.dumps(event).encode() + b"\n")
        except ConnectionResetError:
            pass
        finally:
            stop()
        return response


def register(server: ApiServer, agent: AgentLifecycle) -> None:
    """Bind the path of this module."""
    server.route(
        "GET",
        "/v1/events",
        "events",
        EventRoutes(agent).events,
        asks=requests.EventsRequest,
        gives=responses.EventListResponse,
        streams=responses.EventResponse,
        unjoined=True,
    )
