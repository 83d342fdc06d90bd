"""How long the host's own namespace keeps its hooks of translation beside a gate.

They translate no new connection, but those that were open when the gate was made go on by them.

Owns: when it is asked whether one is left. Does not: keep the hooks (`rules`).
"""

from __future__ import annotations

import asyncio

from overlay import limits
from overlay.agent.process.kernel_thread import KernelThread
from overlay.core.dataplane.host_rules import HostState
from overlay.errors import OverlayError
from overlay.kernel.host import conntrack


class FormerHooks:
    """`look_s` is the time to the next look: longer each time, as connections may stay for weeks.

    Each look goes through the kernel's whole table of connections.
    """

    def __init__(self, kernel: KernelThread) -> None:
        self.look_s = limits.GATE_RETIRING_S
        self._kernel = kernel
        self._ask_at = 0.0  # not before that

    async def translate(self, wanted: HostState) -> bool:
        """Return whether a connection from or to these networks may still need the hooks."""
        now_s = asyncio.get_running_loop().time()
        if now_s < self._ask_at:
            return True
        ranges = {each for link in wanted.links for each in link.ranges}
        try:
            found = await self._kernel.call(conntrack.translates_any, ranges)
        except (OverlayError, OSError):  # the table kept changing, or cannot be read
            found = True
        longer_s = min(2 * self.look_s, limits.GATE_RETIRING_MAX_S)
        self.look_s = longer_s if found else limits.GATE_RETIRING_S
        self._ask_at = now_s + self.look_s if found else 0.0
        return found
