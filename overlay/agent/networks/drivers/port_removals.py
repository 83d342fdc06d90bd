"""Remove the ports of detached endpoints, and try again where the kernel refuses for now.

An endpoint's record is withdrawn before its port goes: what refuses the removal, such as a shortage
of file descriptors, must not keep the detach from its end, nor leave the port until a restart.

Owns: the ports that are still to be removed. Does not: know endpoints or records; the state on disk
does not name these ports any more, so that a start removes them.
"""

from __future__ import annotations

from collections.abc import Sequence

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.dataplane.sandbox_runtime import SandboxRuntime
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Controller
from overlay.core.dataplane.state import Row
from overlay.errors import OverlayError
from overlay.model import Vni


class PortRemovals(Controller):
    """Removes ports, now or as soon as the kernel allows it."""

    name = "port removal"
    problem = "a detached container still has its interface"
    recovered = "the interfaces of detached containers are removed"
    event_kind = "kernel"
    runs_at_start = False  # nothing is pending

    def __init__(self, context: NodeContext, reconciler: Reconciler) -> None:
        super().__init__(context.event_log)
        self._kernel = context.kernel
        self._reconciler = reconciler
        # By the sandbox of which they are; as many as there were endpoints, which are bounded.
        self._pending: dict[tuple[Vni, str], tuple[SandboxRuntime, Sequence[Row]]] = {}

    async def remove(
        self, vni: Vni, runtime: SandboxRuntime, port: str, rows: Sequence[Row]
    ) -> bool:
        """Remove a port of a network's sandbox, and `rows` before it; return whether it was there.

        A port that the kernel keeps for now counts as one that was there.
        """
        try:
            return await runtime.remove_port(self._kernel, port, rows)
        except (OverlayError, OSError):
            self._pending[(vni, port)] = (runtime, rows)
            self.trigger()  # which tells of it, if the next try fails, too
            return True

    async def reconcile(self) -> None:
        """Remove what is pending; one that fails holds up no other.

        A port of a sandbox that is gone has gone with it.
        """
        failures: list[OverlayError | OSError] = []
        for (vni, port), (runtime, rows) in list(self._pending.items()):
            try:
                if self._reconciler.runtime(vni) is runtime:
                    await runtime.remove_port(self._kernel, port, rows)
                del self._pending[(vni, port)]
            except (OverlayError, OSError) as error:
                failures.append(error)
        if failures:
            raise failures[0]
