"""Ports that are no longer published, and are led to the gate while connections to them are open.

As where hooks translate, these live on: it is tracking inside that knows them. UDP flows are
forgotten (`rules`).
"""

from __future__ import annotations

import asyncio
from typing import Final

from overlay import limits
from overlay.agent.process.kernel_thread import KernelThread
from overlay.core.gate.inside import LOOPBACK_DESTINATION
from overlay.core.gate.translation import GatePlan
from overlay.errors import OverlayError
from overlay.kernel.host.conntrack import open_published_ports

Port = tuple[str, int]

_TCP: Final = "tcp"


class FormerPorts:
    """`look_again_s` is when one may have ended its last connection; None if there is none."""

    def __init__(self, kernel: KernelThread) -> None:
        self.look_again_s: float | None = None
        self._kernel = kernel
        self._open: frozenset[Port] = frozenset()
        self._until = 0.0  # so long that is believed

    async def of_plan(
        self, wanted: GatePlan, written: GatePlan | None, netns_fd: int
    ) -> frozenset[Port]:
        """Return those beside a plan's published ones, in the gate's namespace.

        `written` is the plan of before; None for that of an agent of before.
        """
        self.look_again_s = None
        former = None if written is None else written.gate.published - wanted.gate.published
        if former is not None and not any(protocol == _TCP for protocol, _ in former):
            return frozenset()
        now_s = asyncio.get_running_loop().time()
        if former is not None and former <= self._open and now_s < self._until:
            self.look_again_s = self._until - now_s
            return former
        own = wanted.gate.own | {*LOOPBACK_DESTINATION.values()}
        try:
            ports = await self._kernel.call(open_published_ports, netns_fd, own)
        except (OverlayError, OSError):  # what is led there in vain costs time alone
            kept = former or frozenset()
        else:
            found = frozenset((_TCP, port) for port in ports)
            kept = found if former is None else found & former
        # Each look goes through the kernel's whole table of connections.
        self._open, self._until = kept, now_s + limits.GATE_RETIRING_S
        self.look_again_s = limits.GATE_RETIRING_S if kept else None
        return kept
