"""The starts of containers are read from a runtime's event stream while they are needed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from overlay import limits
from overlay.agent.runtimes import engine_events
from overlay.agent.runtimes.engine_events import EngineEvents
from tests.agent.conftest import until

HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n"


class Consumer:
    """Records its calls; needs events while `is_needed` is set."""

    def __init__(self) -> None:
        self.is_needed = True
        self.calls: list[str] = []

    def needs_events(self, _kind: str) -> bool:
        """Return whether events are needed."""
        return self.is_needed

    async def stream_opened(self, kind: str) -> None:
        """Record that the stream is open."""
        self.calls.append(f"opened {kind}")

    async def container_started(self, _kind: str, container_id: str) -> None:
        """Record a start."""
        self.calls.append(f"started {container_id}")

    async def container_changed(self, _kind: str, container_id: str) -> None:
        """Record a new name or a removal."""
        self.calls.append(f"changed {container_id}")

    def quiet(self, kind: str) -> None:
        """Record a pause."""
        self.calls.append(f"quiet {kind}")


class Engine:
    """A Docker engine that sends the same lines on each event stream, then ends it."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.requests: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one request."""
        head = await reader.readuntil(b"\r\n\r\n")
        self.requests.append(head.decode().split()[1])
        writer.write(HEAD + b"".join(self.lines))
        await writer.drain()
        writer.close()


@pytest.fixture
async def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Engine]:
    """Run an engine on the socket that is used for Docker."""
    path = tmp_path / "docker.sock"
    engine = Engine()
    server = await asyncio.start_unix_server(engine.serve, path)
    monkeypatch.setattr(engine_events, "DOCKER_SOCKET", path)
    monkeypatch.setattr(engine_events, "_IDLE_S", 0.01)
    monkeypatch.setattr(limits, "RUNTIME_RETRY_FIRST_S", 0.01)
    yield engine
    server.close()


async def follow(consumer: Consumer, count: int) -> None:
    """Follow the events until the consumer has been called `count` times."""
    task = asyncio.create_task(EngineEvents("docker", consumer).run())
    try:
        await until(lambda: len(consumer.calls) >= count)
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def event(**fields: str) -> bytes:
    """Return one line of a stream."""
    return json.dumps(fields).encode() + b"\n"


async def test_a_start_is_reported_after_the_opening(engine: Engine) -> None:
    """Docker's and Podman's forms of a start are read; other events and noise are ignored."""
    engine.lines = [
        event(status="start", id="one"),
        event(Action="die", id="two"),
        b"no json\n",
        b"[]\n",
        b"[" * 60_000 + b"\n",
        event(Status="start", ID="three"),
    ]
    consumer = Consumer()

    await follow(consumer, 3)

    assert consumer.calls[:3] == ["opened docker", "started one", "started three"]
    assert engine.requests[0].startswith("/events?filters=")


async def test_new_names_and_removals_are_reported(engine: Engine) -> None:
    """Docker's and Podman's words for them are read."""
    engine.lines = [
        event(status="rename", id="one"),
        event(Action="destroy", id="two"),
        event(Status="remove", ID="three"),
    ]
    consumer = Consumer()

    await follow(consumer, 4)

    assert consumer.calls[1:4] == ["changed one", "changed two", "changed three"]


async def test_an_ended_stream_is_opened_again(engine: Engine) -> None:
    """The consumer is notified of every opening, as starts may have been missed before it."""
    consumer = Consumer()

    await follow(consumer, 3)

    assert consumer.calls[:3] == ["opened docker"] * 3
    assert len(engine.requests) >= 3


async def test_no_stream_is_opened_while_none_is_needed(engine: Engine) -> None:
    """The engine gets no request until the consumer needs events."""
    consumer = Consumer()
    consumer.is_needed = False
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(0.2):
            await EngineEvents("docker", consumer).run()

    assert (engine.requests, consumer.calls) == ([], [])
