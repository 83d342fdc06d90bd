"""Whose programs are at interfaces' hooks: a node's, for one use.

Several agents may share a host, and an interface has programs for several uses.
"""

from __future__ import annotations

from typing import Final, NamedTuple

from overlay.kernel.bpf import syscall
from overlay.model import NodeId

INGRESS: Final = syscall.TCX_INGRESS
"""The hook of what an interface receives."""

EGRESS: Final = syscall.TCX_EGRESS
"""The hook of what an interface sends."""


Place = tuple[int, int]
"""An interface, by index, and its hook: `INGRESS` or `EGRESS`."""


class HookUse(NamedTuple):
    """The purpose of programs, and how those of all nodes are recognized."""

    program_prefix: str
    """Names of programs at tcx begin so."""

    filter_name: str
    """The name of tc's filters."""

    handle_base: int
    """The handles of tc's filters begin there: never 0, and never that of a sandbox's filter."""


NATIVE: Final = HookUse("ovn_", "overlayd:native", 0x0100_0000)
"""The native path's programs."""

GATE: Final = HookUse("ovg_", "overlayd:gate", 0x0200_0000)
"""The gate's programs."""

USES: Final = (NATIVE, GATE)


class HookOwner(NamedTuple):
    """A node, as the owner of programs for one use."""

    use: HookUse
    node_id: NodeId

    @property
    def program_name(self) -> str:
        """Return the name of the programs."""
        return f"{self.use.program_prefix}{self.node_id[:3].hex()}"

    @property
    def handle(self) -> int:
        """Return the handle of the filters."""
        return self.use.handle_base | int.from_bytes(self.node_id[:3], "big")
