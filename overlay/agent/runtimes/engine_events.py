"""Following a container runtime's events: which container has started.

Owns: the stream (Docker's API socket, Podman's, or `podman events`), its reconnection with a
bounded back-off. Must not know what a start means to us.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from overlay import limits
from overlay.agent.process.lean_aiohttp import aiohttp
from overlay.agent.runtimes.engines import DOCKER_SOCKET, PODMAN_SOCKET

FILTERS = json.dumps({"type": ["container"], "event": ["start"]})
_QUIET_S = 10.0  # how often a silent stream is asked whether anybody still needs it
_IDLE_S = 0.5


class EngineEvents:
    """One runtime's starts, as long as somebody is interested in them."""

    def __init__(
        self,
        kind: str,
        wanted: Callable[[], bool],
        connected: Callable[[], Awaitable[None]],
        started: Callable[[str], Awaitable[None]],
    ) -> None:
        self.kind = kind
        self._wanted = wanted
        self._connected = connected
        self._started = started

    async def run(self) -> None:
        """Follow until cancelled; what started while nobody listened is `connected`'s to find."""
        pause_s = limits.RUNTIME_RETRY_FIRST_S
        while True:
            if not self._wanted():
                await asyncio.sleep(_IDLE_S)
                continue
            with contextlib.suppress(OSError, aiohttp.ClientError, TimeoutError, ValueError):
                async for line in self._lines():
                    if line is None:
                        pause_s = limits.RUNTIME_RETRY_FIRST_S
                        await self._connected()
                    elif (container_id := _started_id(line)) is not None:
                        await self._started(container_id)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, limits.RUNTIME_RETRY_MAX_S)

    async def _lines(self) -> AsyncIterator[bytes | None]:
        """Yield None when the stream stands, then its lines; ends when nobody wants them."""
        socket = DOCKER_SOCKET if self.kind == "docker" else PODMAN_SOCKET
        source = _of_socket(socket) if socket.exists() else _of_program(self.kind)
        async with contextlib.aclosing(source) as lines:
            async for reader in lines:
                yield None
                while self._wanted():
                    try:
                        line = await asyncio.wait_for(reader.readline(), _QUIET_S)
                    except TimeoutError:
                        continue
                    if not line:
                        return
                    yield line


Reader = asyncio.StreamReader | aiohttp.StreamReader


async def _of_socket(path: Path) -> AsyncGenerator[Reader, None]:
    """Yield the event stream of an API socket; Podman speaks Docker's path at no version."""
    timeout = aiohttp.ClientTimeout(total=None, sock_connect=limits.RUNTIME_RETRY_MAX_S)
    connector = aiohttp.UnixConnector(path=str(path))
    async with (
        aiohttp.ClientSession(connector=connector, timeout=timeout) as session,
        session.get("http://localhost/events", params={"filters": FILTERS}) as response,
    ):
        response.raise_for_status()
        yield response.content


async def _of_program(kind: str) -> AsyncGenerator[Reader, None]:
    """Yield the output of `podman events`: Podman has no daemon that must run."""
    program = shutil.which(kind)
    if program is None or kind != "podman":
        return
    # It must not outlive an agent that is killed.
    leash = ["setpriv", "--pdeathsig", "KILL", "--"] if shutil.which("setpriv") else []
    process = await asyncio.create_subprocess_exec(
        *leash, program, "events", "--format", "json", "--filter", "type=container",
        "--filter", "event=start",
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


def _started_id(line: bytes) -> str | None:
    """Return the id of the container that an event says has started, or None."""
    try:
        event: Any = json.loads(line)
        status = event.get("status") or event.get("Status") or event.get("Action")
        found = event.get("id") or event.get("ID")
    except (ValueError, AttributeError):
        return None
    return str(found) if status == "start" and found else None
