"""Ask other agents for their halves of a way, and answer theirs.

Only members are answered, as nobody else has a session; so many answers in a second, one after the
other, and none is larger than a few datagrams.

Owns: the requests that wait for an answer, and the queue of those to be answered. Does not: read
the kernel (`half`).
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from overlay import limits
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.tasks import report_defect
from overlay.core.events import TraceMessage
from overlay.core.protocol.trace import (
    Finding,
    Outcome,
    Phase,
    Step,
    TraceAnswer,
    TraceRequest,
)
from overlay.errors import OverlayError
from overlay.model import NodeId
from overlay.wire.handshake.token_bucket import TokenBucket

_FRAMING_SIZE = 16  # of a finding in a message: heads and numbers


class FindingSource(Protocol):
    """Explains this host's half of a way."""

    async def findings(self, request: TraceRequest) -> list[Finding]:
        """Return the findings; raises OverlayError or OSError."""


@dataclass(slots=True)
class _Waiting:
    """A request that waits for the parts of its answer."""

    node_id: NodeId
    complete: asyncio.Event = field(default_factory=asyncio.Event)
    parts: dict[int, tuple[Finding, ...]] = field(default_factory=dict)


class TracePeers:
    """The traces that this agent shares with others."""

    def __init__(self, context: NodeContext, half: FindingSource) -> None:
        self._gossip = context.gossip
        self._half = half
        self._waiting: dict[bytes, _Waiting] = {}
        self._queue: asyncio.Queue[tuple[NodeId, TraceRequest]] = asyncio.Queue(
            limits.TRACE_ANSWERS_WAITING_MAX
        )
        self._under_way: set[tuple[NodeId, bytes]] = set()  # in the queue, or being answered
        self._rate = TokenBucket(
            limits.TRACE_ANSWERS_PER_S,
            limits.TRACE_ANSWERS_BURST,
            asyncio.get_running_loop().time(),
        )

    # --- asking -------------------------------------------------------------------------

    async def ask(self, node_id: NodeId, request: TraceRequest) -> list[Finding] | None:
        """Return another host's findings; None if it does not answer in time."""
        if len(self._waiting) >= limits.TRACE_PENDING_MAX:
            return None
        waiting = self._waiting[request.request_id] = _Waiting(node_id)
        try:
            async with asyncio.timeout(limits.TRACE_WAIT_S):
                while not waiting.complete.is_set():
                    self._gossip.node.send_to(node_id, request)
                    self._gossip.transport.flush_soon()
                    await _wait(waiting.complete)
        except TimeoutError:
            return None
        finally:
            del self._waiting[request.request_id]
        return [each for part in sorted(waiting.parts) for each in waiting.parts[part]]

    def handle_message(self, event: TraceMessage) -> None:
        """Take what a member asks, or answers."""
        message = event.message
        if isinstance(message, TraceRequest):
            self._handle_request(event.sender, message)
            return
        waiting = self._waiting.get(message.request_id)
        if waiting is None or waiting.node_id != event.sender:
            return
        waiting.parts[message.part] = message.findings
        if len(waiting.parts) >= message.part_count:
            waiting.complete.set()

    # --- answering ----------------------------------------------------------------------

    def _handle_request(self, sender: NodeId, request: TraceRequest) -> None:
        """Have a request answered, unless it is repeated or one too many."""
        key = (sender, request.request_id)
        now = asyncio.get_running_loop().time()
        if key in self._under_way or self._queue.full() or not self._rate.take(now):
            return
        self._under_way.add(key)
        self._queue.put_nowait((sender, request))

    async def run(self) -> None:
        """Answer requests, one after the other, until cancelled."""
        while True:
            sender, request = await self._queue.get()
            found = await findings_of(self._half, request)
            self._under_way.discard((sender, request.request_id))
            parts = list(_in_parts(found))[: limits.TRACE_PARTS_MAX]
            for number, part in enumerate(parts):
                answer = TraceAnswer(request.request_id, number, len(parts), part)
                self._gossip.node.send_to(sender, answer)
            self._gossip.transport.flush_soon()


async def findings_of(half: FindingSource, request: TraceRequest) -> list[Finding]:
    """Return a host's findings; what it cannot read is a finding, too."""
    try:
        return await half.findings(request)
    except (OverlayError, OSError) as error:
        text = f"the host could not be read: {error}"
    except Exception as error:  # noqa: BLE001 - a member's request must not end the agent
        report_defect("defect while tracing", error)
        text = f"a defect in overlayd: {type(error).__name__}; see the agent's log"
    hint = "Run the command again; overlayd status on that host"
    return [Finding(phase, Step.AGENT, Outcome.UNKNOWN, text, hint) for phase in Phase]


def new_request_id() -> bytes:
    """Return an id that no other agent guesses."""
    return os.urandom(8)


async def _wait(event: asyncio.Event) -> None:
    """Wait until an event is set, at most until a message must be repeated."""
    task = asyncio.ensure_future(event.wait())
    try:
        await asyncio.wait([task], timeout=limits.TRACE_RETRY_S)
    finally:
        task.cancel()


def _in_parts(found: Iterable[Finding]) -> Iterator[tuple[Finding, ...]]:
    """Yield the findings in groups that each fit a message; at least one group."""
    part: list[Finding] = []
    size = 0
    for each in list(found)[: limits.TRACE_FINDINGS_MAX]:
        fitting = each._replace(text=_fitted(each.text), hint=_fitted(each.hint))
        own = len(fitting.text) + len(fitting.hint) + _FRAMING_SIZE
        if part and size + own > limits.TRACE_PART_SIZE_MAX:
            yield tuple(part)
            part, size = [], 0
        part.append(fitting)
        size += own
    yield tuple(part)


def _fitted(text: str) -> str:
    """Return a text as the wire allows it: short, in printable ASCII."""
    shown = "".join(c if c.isascii() and c.isprintable() else "?" for c in text)
    return shown[: limits.TRACE_TEXT_LENGTH_MAX]
