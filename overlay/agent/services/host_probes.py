"""Ask the hosts of backends whether they are there, several times a second.

Only while this host has clients of services with backends elsewhere; an operator whose firewall
drops echo requests, or who takes CAP_NET_RAW from the agent, has gossip's judgement alone.

Owns: which hosts are asked, the socket and the timer, the events. Does not: judge
(`core.services.liveness`).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator
from typing import Protocol

from overlay import limits
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Controller
from overlay.core.protocol.messages import MemberState
from overlay.kernel.services.echo_requests import EchoRequests
from overlay.model import Ip, NodeId
from overlay.signals import Signal


class BackendHosts(Protocol):
    """Knows the hosts of the backends that this host's clients have."""

    changed: Signal[[]]

    def backend_hosts(self) -> set[NodeId]:
        """Return them, this host perhaps among them."""


class HostProbes(Controller):
    """The echo requests to the hosts of backends.

    Signal `changed`: another state of a host counts now for new connections.
    """

    name = "watch over the hosts of backends"
    problem = "hosts of backends are watched by gossip alone"
    level = "warn"
    event_kind = "services"

    def __init__(self, context: NodeContext, clients: BackendHosts) -> None:
        super().__init__(context.event_log)
        self.changed: Signal[[]] = Signal()
        self._gossip = context.gossip
        self._directory = context.directory
        self._liveness = context.directory.view.services.liveness
        self._clients = clients
        self._event_loop = asyncio.get_running_loop()
        self._socket: EchoRequests | None = None
        self._source: Ip | None = None
        self._timer: asyncio.TimerHandle | None = None
        clients.changed.connect(self.trigger)

    @contextlib.asynccontextmanager
    async def prepare(self) -> AsyncIterator[None]:
        """Ask nobody once this ends."""
        try:
            yield
        finally:
            self._liveness.watch({})
            self._close()

    async def reconcile(self) -> None:
        """Watch those hosts; without the right to send requests, none."""
        hosts = self._clients.backend_hosts() - {self._gossip.node_id}
        self._liveness.watch({each: self._directory.node_state(each) for each in hosts})
        source = self._gossip.card.address
        if not self._liveness.hosts:
            self._close()
        elif self._socket is None or self._source != source:
            self._close()
            with contextlib.suppress(PermissionError):
                self._open(source)

    def member_changed(self, node_id: NodeId, state: MemberState) -> None:
        """Take a host's new state by gossip, before anything is derived from it."""
        if self._liveness.member_changed(node_id, state, self._event_loop.time()):
            limit_s = limits.LIVENESS_AGENTLESS_MAX_S
            text = "answers, although its agent does not: services use its backends for"
            self._record(node_id, f"{text} {limit_s:.0f} s at most", logging.WARNING)

    # --- the socket ---------------------------------------------------------------------

    def _open(self, source: Ip) -> None:
        self._socket, self._source = EchoRequests(source), source
        self._event_loop.add_reader(self._socket.fileno(), self._receive)
        self._tick()

    def _close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._socket is not None:
            self._event_loop.remove_reader(self._socket.fileno())
            self._socket.close()
        self._socket = self._timer = None

    def _receive(self) -> None:
        assert self._socket is not None, "it is read while it is open"
        for node_id, number in self._socket.received():
            if self._liveness.answer(node_id, number, self._event_loop.time()) is not None:
                self._record(node_id, "answers again: services use its backends", logging.INFO)
                self.changed.emit()

    def _tick(self) -> None:
        assert self._socket is not None, "the timer ends with it"
        due = self._event_loop.time() + limits.LIVENESS_INTERVAL_S
        self._timer = self._event_loop.call_at(due, self._tick)
        self._receive()  # what came while this agent was busy came in time
        now = self._event_loop.time()
        requests, changes = self._liveness.tick(now)
        for node_id, number in requests:
            card = self._directory.card(node_id)
            if card is not None:
                self._socket.send(node_id, number, card.address)
        for change in changes:
            if change.is_silent:
                text = "does not answer: new connections to services go elsewhere"
                self._record(change.node_id, text, logging.WARNING)
        if changes:
            self.changed.emit()

    def _record(self, node_id: NodeId, text: str, level: int) -> None:
        name = self._directory.node_name(node_id)
        self._event_log.record("services", f"{name} {text}", level=level, peer=name)
