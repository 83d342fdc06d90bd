"""The reserves of addresses of a simulated agent.

Owns: when `core.ipam.reserves` looks at them: soon after a change, and again while an answer is
awaited. The thin equivalent of `agent.ipam.reserves`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from overlay import limits
from overlay.core.ipam.reserves import Cluster, Reserves
from overlay.core.protocol.messages import GrantRefusal
from overlay.core.protocol.records import CLUSTER_SCOPE
from overlay.core.view import View
from overlay.sim.host.host import Host


class SimReserves:
    """The reserves of one host, from one start of its agent to the next."""

    def __init__(self, host: Host, view: View, may_write: Callable[[], bool]) -> None:
        assert host.node is not None
        assert host.addressing is not None
        self._host = host
        self._view = view
        self._may_write = may_write
        self._reserves = Reserves(
            host.addressing,
            host.node.store,
            host.node.scopes,
            lambda: host.environment.rng.randbytes(8),
        )
        self._is_due = False
        self._waits = False
        self.trigger()

    def trigger(self) -> None:
        """Look soon; many triggers before that are one."""
        if not self._is_due:
            self._is_due = True
            self._host.later(limits.RESERVE_SETTLE_S, self._look)

    def handle_refusal(self, refusal: GrantRefusal) -> bool:
        """Note a refusal; return whether it answers a request for a reserve."""
        known = self._reserves.handle_refusal(refusal, self._host.schedule.now)
        if known:
            self.trigger()
        return known

    def _look(self, _: Any = None) -> None:
        self._is_due = False
        host = self._host
        if host.leaving:
            return
        if not self._may_write():
            self._later(limits.RESERVE_RETRY_S)
            return
        assert host.node is not None
        networks = sorted(self._view.networks().values(), key=lambda network: network.vni)
        live = frozenset(host.node.membership.live())
        cluster = Cluster(tuple(self._view.members()), live)
        parts = self._reserves.participations(networks, cluster)
        if parts:
            host.publish(host.commit(CLUSTER_SCOPE, parts))
        for owner, request in self._reserves.requests(networks, cluster, host.schedule.now):
            host.node.send_to(owner, request)
        host.flush()
        due_in = self._reserves.due_in()
        if due_in is not None:
            self._later(due_in)

    def _later(self, pause_s: float) -> None:
        if not self._waits:
            self._waits = True
            self._host.later(pause_s, self._waited)

    def _waited(self, _: Any = None) -> None:
        self._waits = False
        self.trigger()
