"""Tell the members whether this host's VXLAN port accepts IPv6 packets without a UDP checksum.

The kernel's devices say so. Without any, nothing arrives, and what was said stays.

Owns: when the record is written. Does not: make the devices (`kernel.sandbox`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from overlay.agent.dataplane.reconciler import Reconciler
from overlay.agent.declared.service import DeclaredService
from overlay.agent.gossip.context import NodeContext
from overlay.agent.process.controller import Controller
from overlay.agent.records.directory import Directory
from overlay.core.declared.kinds import ZERO_CHECKSUM_KIND
from overlay.core.native.zero_checksum import object_name
from overlay.model import Network

_INTERVAL_S: Final = 30.0  # a node that may not write yet tries again
_SETTLE_S: Final = 0.1
_NAMES_MAX: Final = 3


class ZeroChecksumReport(Controller):
    """This host's record of it."""

    name = "zero checksums"
    problem = "members send to this host by their VXLAN devices, which is slower"
    level = "warn"
    interval_s = _INTERVAL_S
    settle_s = _SETTLE_S

    def __init__(
        self, context: NodeContext, declared: DeclaredService, reconciler: Reconciler
    ) -> None:
        super().__init__(context.event_log)
        self._gossip = context.gossip
        self._directory = context.directory
        self._declared = declared
        self._reconciler = reconciler
        reconciler.sandbox_changed.connect(lambda _vni: self.trigger())

    async def reconcile(self) -> None:
        """Write the record if all devices accept such packets; remove it if one does not."""
        gossip = self._gossip
        if not gossip.may_write:
            return
        name = object_name(gossip.node_id)
        devices = list(self._devices())
        if len(gossip.card.address) == 4 or not all(devices):
            self._declared.remove(ZERO_CHECKSUM_KIND, name)
        elif devices:
            self._declared.put(ZERO_CHECKSUM_KIND, name, gossip.card.software.encode())

    def _devices(self) -> Iterator[bool]:
        """Yield of each VXLAN device whether it accepts them."""
        for network in self._directory.networks():
            runtime = self._reconciler.runtime(network.vni)
            if runtime is not None and runtime.passes:
                yield from list(runtime.sandbox.zero_checksums.values())


def refusing_text(network: Network, directory: Directory) -> str:
    """Return the names of a network's hosts that have not said it, `vm2, vm3`; empty for none."""
    view = directory.view
    said = frozenset() if directory.zero_checksum is None else directory.zero_checksum.nodes()
    names = sorted(
        directory.node_name(each)
        for each in view.participants(network.vni, forwarding=True)
        if each != directory.own and each not in said and view.vtep_of(each) is not None
    )
    more = f" and {len(names) - _NAMES_MAX} more" if names[_NAMES_MAX:] else ""
    return ", ".join(names[:_NAMES_MAX]) + more
