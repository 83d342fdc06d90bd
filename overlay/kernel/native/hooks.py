"""The hooks of a node's programs on the underlay's interfaces: tcx, else those of tc.

Owns: the choice. An agent of before may have used the other kind, after a change of the kernel
alone; so what is removed is looked for at both.
"""

from __future__ import annotations

from typing import Protocol

from overlay.kernel.native import clsact_hooks, tcx_hooks
from overlay.kernel.native.clsact_hooks import ClsactHooks
from overlay.kernel.native.tcx_hooks import TcxHooks
from overlay.kernel.netlink.link_lookup import link_name
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import NodeId


class UnderlayHooks(Protocol):
    """The programs of one node on interfaces."""

    def read(self) -> list[tuple[int, int]]:
        """Return the interfaces, by index, that run a program of this node, and its id."""

    def put(self, index: int, program_fd: int) -> None:
        """Run a program on an interface, in place of this node's former one. Raises OSError."""

    def delete(self, index: int) -> None:
        """Remove this node's program from an interface. Raises OSError."""


def stops_interfaces() -> bool:
    """Return whether an interface drops packets while the first program comes or the last one goes.

    The kernel stops it while a queueing discipline, which tc's hooks are, is added or removed.
    """
    return not tcx_hooks.has_tcx()


def hooks_of(socket: NetlinkSocket, node_id: NodeId) -> UnderlayHooks:
    """Return the hooks for a node's programs in the thread's namespace, which is the socket's."""
    return TcxHooks(node_id) if tcx_hooks.has_tcx() else ClsactHooks(socket, node_id)


def remove_all(socket: NetlinkSocket) -> list[str]:
    """Remove the programs of all nodes from all interfaces; return descriptions of them."""
    return _texts(socket, [*tcx_hooks.remove_all(), *clsact_hooks.remove_all(socket)])


def remove_programs(socket: NetlinkSocket, node_id: NodeId) -> list[str]:
    """Remove a node's programs from all interfaces; return descriptions of them."""
    hooks = hooks_of(socket, node_id)
    indexes = [index for index, _ in hooks.read()]
    for index in indexes:
        hooks.delete(index)
    return _texts(socket, indexes)


def _texts(socket: NetlinkSocket, indexes: list[int]) -> list[str]:
    return [f"native path's program on {link_name(socket, index)}" for index in indexes]
