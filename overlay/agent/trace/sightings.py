"""Watch for the marked packet of a trace at its far end, and ask the other host to do so.

A mark is 8 random bytes at one place of an echo request, and nothing but the interfaces that it
passed is told. Owns: the marks that are watched for, and the questions. Does not: send the packet
(the command line does), or judge where it was lost.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
from dataclasses import dataclass, field

from overlay import limits
from overlay.agent.process.tasks import report_defect
from overlay.agent.trace.context import WayContext
from overlay.agent.trace.ends import find_ends
from overlay.agent.trace.party import Pair
from overlay.core.dataplane.network_drivers import has_tunnel
from overlay.core.events import SightingMessage
from overlay.core.protocol.capture import (
    CaptureState,
    PlacedSighting,
    SightingAnswer,
    SightingRequest,
)
from overlay.errors import ConflictError, NotFoundError, OverlayError
from overlay.kernel.capture.container_tap import TapPlace
from overlay.kernel.way_taps import WayTaps, open_taps
from overlay.model import NodeId
from overlay.wire.handshake.token_bucket import TokenBucket


@dataclass(slots=True)
class _Watch:
    """A mark that is watched for."""

    sender: NodeId
    taps: WayTaps
    seen: list[PlacedSighting] = field(default_factory=list)

    def answer(self, mark: bytes) -> SightingAnswer:
        """Return what was seen so far."""
        self.seen = [*self.seen, *self.taps.sightings()][: limits.CAPTURE_BATCH_COUNT]
        return SightingAnswer(mark, CaptureState.CAPTURING, tuple(self.seen))


@dataclass(slots=True)
class _Question:
    """A request that waits for its answer."""

    node_id: NodeId
    answer: asyncio.Future[SightingAnswer]


class Sightings:
    """The marks that this agent watches for, for itself and for members."""

    def __init__(self, context: WayContext, *, is_allowed: bool) -> None:
        self._context = context
        self._is_allowed = is_allowed
        self._gossip = context.node.gossip
        self._own = context.node.directory.own
        self._watches: dict[bytes, _Watch] = {}
        self._questions: dict[bytes, _Question] = {}
        self._queue: asyncio.Queue[tuple[NodeId, SightingRequest]] = asyncio.Queue(
            limits.TRACE_ANSWERS_WAITING_MAX
        )
        self._rate = TokenBucket(
            limits.TRACE_ANSWERS_PER_S,
            limits.TRACE_ANSWERS_BURST,
            asyncio.get_running_loop().time(),
        )

    # --- asking -------------------------------------------------------------------------

    async def look(self, pair: Pair, mark: bytes) -> SightingAnswer | None:
        """Begin to watch for a mark at the target's end, or return what was seen of it since.

        Returns None if the other host does not answer. Raises ConflictError for ends that no
        packets of overlayd's connect.
        """
        if pair.source.endpoint is None or pair.target.endpoint is None:
            raise ConflictError(
                "only packets between two containers are watched for",
                hint="Name two containers",
            )
        if pair.target.vtep is not None:
            raise ConflictError(
                "no agent runs behind a VTEP of a fabric",
                hint="Look there with the tools of that host",
            )
        ends = (pair.target.endpoint.endpoint_id, pair.source.endpoint.endpoint_id)
        request = SightingRequest(mark, pair.target.network.vni, ends, pair.target_ip)
        if pair.target.node_id == self._own:
            return await self._answer(self._own, request)
        return await self._ask(pair.target.node_id, request)

    async def _ask(self, node_id: NodeId, request: SightingRequest) -> SightingAnswer | None:
        if request.mark in self._questions or len(self._questions) >= limits.TRACE_PENDING_MAX:
            return None
        future: asyncio.Future[SightingAnswer] = asyncio.get_running_loop().create_future()
        self._questions[request.mark] = _Question(node_id, future)
        try:
            async with asyncio.timeout(limits.SIGHTING_WAIT_S):
                while not future.done():
                    self._gossip.node.send_to(node_id, request)
                    self._gossip.transport.flush_soon()
                    await asyncio.wait([future], timeout=limits.CAPTURE_FIRST_REPEAT_S)
        except TimeoutError:
            return None
        finally:
            del self._questions[request.mark]
        return future.result()

    def handle_message(self, event: SightingMessage) -> None:
        """Take what a member asks, or answers."""
        message = event.message
        if isinstance(message, SightingRequest):
            if not self._queue.full():
                self._queue.put_nowait((event.sender, message))
            return
        question = self._questions.get(message.mark)
        is_expected = question is not None and question.node_id == event.sender
        if question is not None and is_expected and not question.answer.done():
            question.answer.set_result(message)

    # --- watching -----------------------------------------------------------------------

    async def run(self) -> None:
        """Answer members' requests, one after the other, until cancelled."""
        while True:
            sender, request = await self._queue.get()
            try:
                answer = await self._answer(sender, request)
            except Exception as error:  # noqa: BLE001 - a member's request must not end the agent
                report_defect("defect while watching for a packet", error)
                answer = SightingAnswer(request.mark, CaptureState.FAILED)
            self._gossip.node.send_to(sender, answer)
            self._gossip.transport.flush_soon()

    async def _answer(self, sender: NodeId, request: SightingRequest) -> SightingAnswer:
        watch = self._watches.get(request.mark)
        if watch is not None and watch.sender == sender:
            return watch.answer(request.mark)
        state = self._refusal()
        if state is None and watch is None:
            state = await self._begin(sender, request)
        return SightingAnswer(request.mark, CaptureState.BUSY if state is None else state)

    def _refusal(self) -> CaptureState | None:
        if not self._is_allowed:
            return CaptureState.FORBIDDEN
        now = asyncio.get_running_loop().time()
        if len(self._watches) >= limits.TRACE_ANSWERS_WAITING_MAX or not self._rate.take(now):
            return CaptureState.BUSY
        return None

    async def _begin(self, sender: NodeId, request: SightingRequest) -> CaptureState:
        """Watch for a mark from now on, for a while."""
        own_id, peer_id = request.ends
        node, reconciler = self._context.node, self._context.reconciler
        try:
            ends = find_ends(
                node.directory, self._context.attachments, request.vni, own_id, peer_id
            )
            if ends.peer.origin != sender:
                return CaptureState.UNKNOWN_ENDS
            is_remote = sender != self._own and has_tunnel(ends.network)
            vtep = reconciler.vtep_of(ends.network, node.gossip.card) if is_remote else None
            place = TapPlace(
                ends.attachment.netns_path,
                ends.attachment.netns_identity,
                ends.attachment.ifname,
                ends.own.mac,
            )
            taps = await node.kernel.call(open_taps, place, request.mark, request.target, vtep)
        except NotFoundError:
            return CaptureState.UNKNOWN_ENDS
        except OverlayError:
            return CaptureState.FAILED
        except OSError as error:
            if error.errno in (errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT):
                return CaptureState.NO_PACKET_SOCKETS
            return CaptureState.FAILED
        if taps is None:
            return CaptureState.ENDED
        self._watches[request.mark] = _Watch(sender, taps)
        asyncio.get_running_loop().call_later(limits.SIGHTING_WATCH_S, self._end, request.mark)
        return CaptureState.CAPTURING

    def _end(self, mark: bytes) -> None:
        watch = self._watches.pop(mark, None)
        if watch is not None:
            watch.taps.close()

    def close(self) -> None:
        """Stop watching."""
        for mark in list(self._watches):
            with contextlib.suppress(OSError):
                self._end(mark)
