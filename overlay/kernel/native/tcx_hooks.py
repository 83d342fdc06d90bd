"""A node's programs on the underlay's interfaces, without a queueing discipline (`bpf.tcx`).

Owns: which programs are this node's. Several agents may share a host.
"""

from __future__ import annotations

from typing import Final

from overlay.kernel.bpf import tcx
from overlay.kernel.bpf.tcx import has_tcx
from overlay.model import NodeId

__all__ = ["TcxHooks", "has_tcx", "program_name", "remove_all"]

_PREFIX: Final = "ovn_"  # of the programs' names


def program_name(node_id: NodeId) -> str:
    """Return the name of a node's programs."""
    return f"{_PREFIX}{node_id[:3].hex()}"


class TcxHooks:
    """The programs of one node in the thread's namespace."""

    def __init__(self, node_id: NodeId) -> None:
        self._name = program_name(node_id)

    def read(self) -> list[tuple[int, int]]:
        """Return the interfaces, by index, that run a program of this node, and its id."""
        return list(tcx.programs(self._name))

    def put(self, index: int, program_fd: int) -> None:
        """Run a program on an interface, in place of this node's former one. Raises OSError.

        Does nothing if there is no such interface.
        """
        tcx.put(index, program_fd, self._name)

    def delete(self, index: int) -> None:
        """Remove this node's programs from an interface. Raises OSError."""
        tcx.delete(index, self._name)


def remove_all() -> list[int]:
    """Remove the programs of all nodes from all interfaces; return the interfaces' indexes."""
    return tcx.remove_all(_PREFIX)
