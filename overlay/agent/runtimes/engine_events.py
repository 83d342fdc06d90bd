"""Follow a container runtime's events: which containers start, change their names, and go.

Owns: the event stream (of Docker's or Podman's API socket, or of `podman events`), and its
reconnection with a bounded back-off. Does not: act on an event.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncGenerator, AsyncIterator
from pathlib import Path
from typing import Any, Protocol

from overlay import limits
from overlay.agent.process.lean_aiohttp import aiohttp
from overlay.agent.process.tasks import pause
from overlay.agent.runtimes.engines import DOCKER_SOCKET, PODMAN_SOCKET

CHANGES = ("rename", "destroy", "remove")  # the second is Docker's, the third Podman's
FILTERS = json.dumps({"type": ["container"], "event": ["start", *CHANGES]})
_QUIET_S = 10.0  # how often to check, on a silent stream, whether it is still needed
_IDLE_S = 0.5  # how often to check whether a stream is needed


class EventConsumer(Protocol):
    """The component that acts on the events of containers."""

    def needs_events(self, kind: str) -> bool:
        """Return whether the events of a runtime (`docker`, `podman`) are needed now."""

    async def stream_opened(self, kind: str) -> None:
        """Check which containers have started while there was no event stream."""

    async def container_started(self, kind: str, container_id: str) -> object:
        """Act on the start of a container."""

    async def container_changed(self, kind: str, container_id: str) -> None:
        """Act on a new name or the removal of a container."""

    def quiet(self, kind: str) -> None:
        """Do what is due when nothing happened for a while."""


class EngineEvents:
    """The events of one runtime's containers, followed while the consumer needs them."""

    def __init__(self, kind: str, consumer: EventConsumer) -> None:
        self.kind = kind
        self._consumer = consumer

    async def run(self) -> None:
        """Follow the events until cancelled; reconnect whenever the stream ends."""
        pause_s = limits.RUNTIME_RETRY_FIRST_S
        while True:
            if not self._consumer.needs_events(self.kind):
                await pause(_IDLE_S)
                continue
            with contextlib.suppress(OSError, aiohttp.ClientError, TimeoutError, ValueError):
                async for line in self._lines():
                    if line is None:
                        pause_s = limits.RUNTIME_RETRY_FIRST_S
                        await self._consumer.stream_opened(self.kind)
                    else:
                        await self._handle(line)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, limits.RUNTIME_RETRY_MAX_S)

    async def _handle(self, line: bytes) -> None:
        """Hand an event on; anything else is ignored, also a line that is not an event."""
        try:
            event: Any = json.loads(line)
            status = event.get("status") or event.get("Status") or event.get("Action")
            container_id = event.get("id") or event.get("ID")
        except (ValueError, AttributeError, RecursionError):
            return
        if status == "start" and container_id:
            await self._consumer.container_started(self.kind, str(container_id))
        elif status in CHANGES and container_id:
            await self._consumer.container_changed(self.kind, str(container_id))

    async def _lines(self) -> AsyncIterator[bytes | None]:
        """Yield None once the stream is open, then its lines while they are needed."""
        socket = DOCKER_SOCKET if self.kind == "docker" else PODMAN_SOCKET
        source = event_stream(socket, FILTERS) if socket.exists() else _from_program(self.kind)
        async with contextlib.aclosing(source) as streams:
            async for reader in streams:
                yield None
                while self._consumer.needs_events(self.kind):
                    try:
                        async with asyncio.timeout(_QUIET_S):
                            line = await reader.readline()
                    except TimeoutError:
                        self._consumer.quiet(self.kind)
                        continue
                    if not line:
                        return
                    yield line


Reader = asyncio.StreamReader | aiohttp.StreamReader


async def event_stream(path: Path, filters: str) -> AsyncGenerator[Reader, None]:
    """Yield the event stream of an API socket, of the events that the filters (JSON) let through.

    The path has no API version: Podman accepts Docker's path only without one.
    """
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.RUNTIME_RETRY_MAX_S)
    connector = aiohttp.UnixConnector(path=str(path))
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        session.get("http://localhost/events", params={"filters": filters}) as response,
    ):
        response.raise_for_status()
        yield response.content


async def _from_program(kind: str) -> AsyncGenerator[Reader, None]:
    """Yield the output of `podman events`: Podman needs no daemon."""
    program = shutil.which(kind)
    if program is None or kind != "podman":
        return
    # The program must end with the agent, also if the agent is killed.
    wrapper = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
    process = await asyncio.create_subprocess_exec(
        *wrapper, program, "events", "--format", "json", "--filter", "type=container",
        *(word for event in ("start", *CHANGES) for word in ("--filter", f"event={event}")),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert process.stdout is not None
        yield process.stdout
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
