"""Find the networks whose containers send so much that checks of their paths' sizes cost little.

Owns: the counters at the last check of each network. Does not: know what a check is.
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.process.kernel_thread import KernelThread
from overlay.errors import OverlayError
from overlay.kernel.sandbox.traffic import read_tunnel_bytes
from overlay.model import Vni


class BusyNetworks:
    """Compares what networks have sent since they were last found busy."""

    def __init__(self, kernel: KernelThread, reconciler: Reconciler) -> None:
        self._kernel = kernel
        self._reconciler = reconciler
        self._sent: dict[Vni, int] = {}  # bytes, at the beginning, and when last found busy

    async def find(self, enough: Mapping[Vni, int]) -> list[Vni]:
        """Return the networks that have sent `enough` bytes since they were last returned."""
        found: list[Vni] = []
        before, self._sent = self._sent, {}
        for vni, wanted in enough.items():
            runtime = self._reconciler.runtime(vni)
            if runtime is None:
                continue
            now: int | None = None
            with contextlib.suppress(OverlayError, OSError):  # closed meanwhile
                now = await self._kernel.call(read_tunnel_bytes, runtime.sandbox)
            if now is None:
                continue
            since = before.get(vni)
            is_busy = since is not None and now - since >= wanted
            is_new = since is None or now < since  # or its VTEP is
            self._sent[vni] = now if is_busy or is_new else since or 0
            found += [vni] * is_busy
        return found
