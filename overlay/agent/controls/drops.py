"""Count the frames of this host's containers that its controls dropped, by reason.

Owns: the last reading, and the sums since this agent began to count, which never fall.
Does not: drop or count frames; the kernel does.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, TypeAlias

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.process.kernel_thread import KernelThread
from overlay.agent.state.attachments import Attachments
from overlay.errors import NotFoundError
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.model import Vni

Drops: TypeAlias = Mapping[str, int]
"""Dropped frames of one port, by reason."""
STORM, SWITCH, SHARED_RATE = "storm", "switch", "shared_rate"
_ALL_PORTS: Final = ""


class DropCounters:
    """Reads what was dropped at the ports of containers."""

    def __init__(
        self, kernel: KernelThread, reconciler: Reconciler, attachments: Attachments
    ) -> None:
        self._kernel = kernel
        self._reconciler = reconciler
        self._attachments = attachments
        self._ports: dict[Vni, dict[str, Drops]] = {}
        self.totals: dict[tuple[Vni, str], int] = {}
        """Frames by network and reason, since this agent began to count."""

    async def read(self, vnis: Iterable[Vni]) -> None:
        """Read the counters of some networks' ports; of one without a sandbox here, none."""
        for vni in set(vnis):
            runtime = self._reconciler.runtime(vni)
            ports = [each.port for each in self._attachments.values() if each.vni == vni]
            if runtime is None or not ports:
                self._ports.pop(vni, None)
                continue
            found = await self._kernel.call(_read, runtime.sandbox, ports)
            if found is not None:
                self._add(vni, found)
                self._ports[vni] = found

    def of_port(self, vni: Vni, port: str) -> Drops:
        """Return what was dropped at a port, as last read."""
        return self._ports.get(vni, {}).get(port, {})

    def _add(self, vni: Vni, found: Mapping[str, Drops]) -> None:
        before = self._ports.get(vni, {})
        for port, drops in found.items():
            for reason, count in drops.items():
                former = before.get(port, {}).get(reason, 0)
                grown = count - former if count >= former else count  # it began anew
                key = (vni, reason)
                self.totals[key] = self.totals.get(key, 0) + grown


def _read(sandbox: Sandbox, ports: Sequence[str]) -> dict[str, Drops] | None:
    """Return the drops of ports; None if the kernel does not answer, or the sandbox is closed."""
    if sandbox.netns_fd < 0:
        return None
    try:
        controls = sandbox.controls
        storms = {} if controls is None else controls.storms_dropped()
        refused = {} if sandbox.guard is None else sandbox.guard.dropped()
        of_all = {SWITCH: 0 if controls is None else controls.boundary_dropped()}
        above = sandbox.shared_rates.dropped(sandbox.socket)
        found: dict[str, Drops] = {
            _ALL_PORTS: of_all | ({} if above is None else {SHARED_RATE: above})
        }
    except OSError:
        return None
    for port in ports:
        try:
            index = sandbox.link_index(port)
        except NotFoundError:
            continue
        drops = refused.get(index, {}) | ({STORM: storms[index]} if storms.get(index) else {})
        if drops:
            found[port] = drops
    return found
