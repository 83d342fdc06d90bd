"""Capture at this host's containers for members, within what a member may see.

A member gets frames of one of this host's containers only from and to the addresses of a container
of its own, which all pass its own host: it learns where they are lost, and nothing else. The
sender of a request is known by its session, and the addresses are its own by the grants.

Owns: who may capture what, and how many at once. Does not: read frames (`peer_capture`).
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import time
from functools import partial

from overlay import limits
from overlay.agent.capture.peer_capture import PeerCapture
from overlay.agent.process.tasks import report_defect
from overlay.agent.trace.context import WayContext
from overlay.agent.trace.ends import Ends, find_ends
from overlay.core.capture import classic_bpf
from overlay.core.capture.address_filter import with_addresses
from overlay.core.protocol.capture import (
    CaptureAnswer,
    CaptureRequest,
    CaptureState,
    CaptureStatus,
)
from overlay.errors import NotFoundError, OverlayError
from overlay.kernel.capture.container_tap import TapPlace, open_tap
from overlay.model import NodeId
from overlay.wire.handshake.token_bucket import TokenBucket

_Key = tuple[NodeId, bytes]
_FORBIDDEN = frozenset({errno.EPERM, errno.EACCES, errno.EAFNOSUPPORT})


class CaptureAnswers:
    """The captures of members at this host's containers."""

    def __init__(self, context: WayContext, *, is_allowed: bool) -> None:
        self._context = context
        self._is_allowed = is_allowed
        self._gossip = context.node.gossip
        self._event_log = context.node.event_log
        now = asyncio.get_running_loop().time()
        self._starts = TokenBucket(limits.CAPTURE_STARTS_PER_S, limits.CAPTURE_STARTS_BURST, now)
        self._rate = TokenBucket(limits.CAPTURE_MESSAGES_PER_S, limits.CAPTURE_MESSAGES_PER_S, now)
        self._queue: asyncio.Queue[tuple[NodeId, CaptureRequest]] = asyncio.Queue(
            limits.CAPTURES_FOR_PEERS_MAX
        )
        self._starting: set[_Key] = set()
        self._captures: dict[_Key, PeerCapture] = {}
        self.started_count = 0
        self._ended_sent_count = 0

    @property
    def sent_count(self) -> int:
        """Return how many frames were sent to members."""
        return self._ended_sent_count + sum(each.sent_count for each in self._captures.values())

    # --- requests -------------------------------------------------------------------------

    def handle_request(self, sender: NodeId, request: CaptureRequest) -> None:
        """Begin, continue or end a capture for a member."""
        key = (sender, request.request_id)
        capture = self._captures.get(key)
        if capture is not None:
            capture.renew(request)
        elif key in self._starting or request.lasts_ms == 0:
            pass  # it is being opened, or it has ended
        elif not self._is_allowed:
            if self._starts.take(asyncio.get_running_loop().time()):
                self._record(sender, "asked to capture here, and was refused: capture_from_peers")
            self._refuse(sender, request, CaptureState.FORBIDDEN)
        elif self._is_busy():
            self._refuse(sender, request, CaptureState.BUSY)
        else:
            self._starting.add(key)
            self._queue.put_nowait((sender, request))

    def _is_busy(self) -> bool:
        count = len(self._captures) + len(self._starting)
        now = asyncio.get_running_loop().time()
        return count >= limits.CAPTURES_FOR_PEERS_MAX or not self._starts.take(now)

    async def run(self) -> None:
        """Open captures, one after the other, until cancelled."""
        while True:
            sender, request = await self._queue.get()
            try:
                state = await self._start(sender, request)
            except Exception as error:  # noqa: BLE001 - a member's request must not end the agent
                report_defect("defect while starting a capture", error)
                state = CaptureState.FAILED
            self._starting.discard((sender, request.request_id))
            if state is not CaptureState.CAPTURING:
                self._refuse(sender, request, state)

    async def _start(self, sender: NodeId, request: CaptureRequest) -> CaptureState:
        try:
            ends = self._ends(sender, request)
            program = classic_bpf.unpack(request.program) or classic_bpf.ALL
            place = TapPlace(
                ends.attachment.netns_path,
                ends.attachment.netns_identity,
                ends.attachment.ifname,
                ends.own.mac,
            )
            tap = await self._context.node.kernel.call(
                open_tap,
                place,
                with_addresses(ends.peer.endpoint.ips, program),
                snap=request.snap,
                buffer_size=limits.CAPTURE_PEER_BUFFER_SIZE,
            )
        except NotFoundError:
            return CaptureState.UNKNOWN_ENDS
        except OverlayError:
            return CaptureState.FAILED
        except OSError as error:
            return _state_of(error)
        if tap is None:
            return CaptureState.ENDED
        key = (sender, request.request_id)
        what = f"the frames between {ends.own.name} and its {ends.peer.endpoint.name}"
        self._record(sender, f"captures {what}, here at {ends.own.name}")
        self.started_count += 1
        self._captures[key] = PeerCapture(
            place,
            tap,
            request,
            self._rate,
            partial(self._send, sender),
            partial(self._ended, key, what),
        )
        return CaptureState.CAPTURING

    def _ends(self, sender: NodeId, request: CaptureRequest) -> Ends:
        """Return both ends; raises NotFoundError if the other one is not the sender's own."""
        own_id, peer_id = request.ends
        directory = self._context.node.directory
        ends = find_ends(directory, self._context.attachments, request.vni, own_id, peer_id)
        origin, endpoint = ends.peer
        network = ends.peer_network
        if origin != sender or not directory.view.owns_addresses(network, origin, endpoint):
            raise NotFoundError(f"endpoint {peer_id.hex()}")
        return ends

    # --- answers --------------------------------------------------------------------------

    def _ended(self, key: _Key, what: str, capture: PeerCapture) -> None:
        self._captures.pop(key, None)
        self._ended_sent_count += capture.sent_count
        dropped = capture.dropped_count
        more = f", and {dropped} were too many to send" if dropped else ""
        self._record(key[0], f"has ended its capture of {what}: {capture.sent_count} sent{more}")

    def _refuse(self, sender: NodeId, request: CaptureRequest, state: CaptureState) -> None:
        status = CaptureStatus(state, request.number, 0, "")
        self._send(sender, CaptureAnswer(request.request_id, 1, time.time_ns(), status))

    def _send(self, sender: NodeId, answer: CaptureAnswer) -> None:
        self._gossip.node.send_to(sender, answer)
        self._gossip.transport.flush_soon()

    def _record(self, sender: NodeId, text: str) -> None:
        name = self._context.node.directory.node_name(sender)
        self._event_log.record("capture", f"{name} {text}", peer=name)

    def close(self) -> None:
        """End all captures."""
        for capture in self._captures.values():
            with contextlib.suppress(OSError):
                capture.close()
        self._captures.clear()


def _state_of(error: OSError) -> CaptureState:
    if error.errno in _FORBIDDEN:
        return CaptureState.NO_PACKET_SOCKETS
    return CaptureState.BAD_FILTER if error.errno == errno.EINVAL else CaptureState.FAILED
