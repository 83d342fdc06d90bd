"""Requests for grants of other nodes, and the wait for their answers.

Owns: the repetition of a request, and its refusal. A grant comes as a record. Does not: choose an
owner, or what is requested (`allocator`).
"""

from __future__ import annotations

import asyncio
from typing import Any

from overlay.agent.gossip.service import GossipService
from overlay.core.protocol.messages import GrantRefusal, GrantRequest
from overlay.core.protocol.records import Scope
from overlay.model import Grant, NodeId

_TRY_S = 0.4  # a request is repeated with the same id, so a lost answer costs one try
_TRIES = 3


class GrantRequests:
    """The requests of this node that wait for an answer."""

    def __init__(self, gossip: GossipService) -> None:
        self._gossip = gossip
        self._refusals: dict[bytes, asyncio.Future[GrantRefusal]] = {}
        self._changed = asyncio.Event()

    def records_changed(self) -> None:
        """Note that records changed: a grant may have arrived."""
        self._changed.set()

    def handle_refusal(self, refusal: GrantRefusal) -> None:
        """Note that an owner has refused a request."""
        waiting = self._refusals.get(refusal.request_id)
        if waiting is not None and not waiting.done():
            waiting.set_result(refusal)

    async def send(
        self, owner: NodeId, request: GrantRequest, tries: int = _TRIES
    ) -> GrantRefusal | None:
        """Send a request until the grant or a refusal arrives, at most `tries` times.

        Returns the refusal; None if there was none.
        """
        loop = asyncio.get_running_loop()
        refused: asyncio.Future[GrantRefusal] = loop.create_future()
        self._refusals[request.request_id] = refused
        try:
            for _ in range(tries):
                self._gossip.node.send_to(owner, request)
                self._gossip.transport.flush()
                deadline = loop.time() + _TRY_S
                while loop.time() < deadline and not refused.done():
                    if self._is_granted(request):
                        return None
                    await self.wait_change(deadline - loop.time(), refused)
                if refused.done():
                    return refused.result()
        finally:
            self._refusals.pop(request.request_id, None)
        return None

    async def wait_change(
        self, timeout_s: float, refused: asyncio.Future[GrantRefusal] | None = None
    ) -> None:
        """Wait until records have changed, or a request is refused, or the time is over."""
        self._changed.clear()
        change = asyncio.ensure_future(self._changed.wait())
        try:
            either: set[asyncio.Future[Any]] = {change} if refused is None else {change, refused}
            await asyncio.wait(either, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED)
        finally:
            change.cancel()

    def _is_granted(self, request: GrantRequest) -> bool:
        return any(
            isinstance(value, Grant) and value.request_id == request.request_id
            for _, value in self._gossip.node.store.values(Scope(request.vni), "grant")
        )
