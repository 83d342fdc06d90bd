"""Ask the agent of this host, without blocking the event loop.

Owns: which answers the page needs. Does not: know what is made of them, or word errors
(`client.api_errors`).
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import NamedTuple

from overlay.agent.process.lean_aiohttp import aiohttp
from overlay.client.api import LOOK_TIMEOUT_S, JsonObject
from overlay.client.api_errors import answered_error, connection_error, decoded
from overlay.client.paths import Paths
from overlay.errors import OverlayError


class Answers(NamedTuple):
    """The agent's answers at one moment, in the fields of docs/API.md."""

    status: JsonObject
    members: list[JsonObject]
    endpoints: JsonObject
    networks: list[JsonObject]


class AgentLink:
    """Requests to the agent that listens on the socket of `paths`."""

    def __init__(self, paths: Paths) -> None:
        self._paths = paths
        self._timeout_s = LOOK_TIMEOUT_S if paths.timeout_s is None else paths.timeout_s

    async def look(self) -> Answers:
        """Return everything that the page shows, except for events. Raises OverlayError."""
        status, members, endpoints, networks = await asyncio.gather(
            self.get("/v1/status"),
            self.get("/v1/members"),
            self.get("/v1/endpoints"),
            self.get("/v1/networks"),
        )
        return Answers(status, members["members"], endpoints, networks["networks"])

    async def get(self, path: str) -> JsonObject:
        """Return the answer to a GET. Raises OverlayError."""
        limit = aiohttp.ClientTimeout(total=self._timeout_s)
        try:
            async with self._session(limit) as session, session.get(_url(path)) as response:
                raw = await response.read()
        except (OSError, aiohttp.ClientError) as error:
            raise self._failed(error) from error
        if response.status >= 400:
            raise answered_error(raw, response.status)
        return decoded(raw, response.status)

    async def events(self, since: float) -> AsyncIterator[JsonObject]:
        """Yield events since a time, then each new one, until the agent stops.

        Raises OverlayError.
        """
        limit = aiohttp.ClientTimeout(total=None, sock_connect=self._timeout_s)
        path = f"/v1/events?follow=1&since={since}"
        try:
            async with self._session(limit) as session, session.get(_url(path)) as response:
                if response.status >= 400:
                    raise answered_error(await response.read(), response.status)
                async for line in response.content:
                    yield json.loads(line)
        except (OSError, ValueError, aiohttp.ClientError) as error:
            raise self._failed(error) from error

    def _session(self, limit: aiohttp.ClientTimeout) -> aiohttp.ClientSession:
        connector = aiohttp.UnixConnector(str(self._paths.socket), force_close=True)
        return aiohttp.ClientSession(connector=connector, timeout=limit)

    def _failed(self, error: Exception) -> OverlayError:
        cause: Exception = error
        if isinstance(error, aiohttp.ClientConnectorError):
            cause = error.os_error
        elif isinstance(error, aiohttp.ClientError | ValueError):
            cause = ConnectionResetError(str(error) or type(error).__name__)
        return connection_error(
            cause, str(self._paths.socket), str(self._paths.log), self._timeout_s
        )


def _url(path: str) -> str:
    return f"http://overlayd{path}"
