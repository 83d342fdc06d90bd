"""The hooks of interfaces for an owner's programs: tcx, else those of tc.

Owns: the choice. What is removed is looked for at both kinds.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Protocol

from overlay.kernel.bpf.hooks import clsact, tcx
from overlay.kernel.bpf.hooks.clsact import ClsactHooks
from overlay.kernel.bpf.hooks.owner import EGRESS, INGRESS, HookOwner, HookUse, Place
from overlay.kernel.bpf.hooks.tcx import TcxHooks
from overlay.kernel.netlink.socket import NetlinkSocket


class InterfaceHooks(Protocol):
    """The programs of one owner on interfaces; `where` is `INGRESS` or `EGRESS`."""

    def read(self, where: int) -> list[tuple[int, int]]:
        """Return the interfaces, by index, whose hook runs a program of this owner, and its id."""

    def at(self, places: Iterable[Place]) -> dict[Place, list[int]]:
        """Return the ids of this owner's programs at interfaces' hooks."""

    def put(self, index: int, program_fd: int, where: int) -> None:
        """Run a program at an interface's hook, in place of this owner's former one.

        Does nothing if there is no such interface. Raises OSError.
        """

    def delete(self, index: int, where: int) -> None:
        """Remove this owner's program from an interface's hook. Raises OSError."""

    def has_others(self) -> bool:
        """Return whether an interface runs another node's program for the same use."""


def stops_interfaces() -> bool:
    """Return whether an interface drops packets while the first program comes or the last one goes.

    The kernel stops it while a queueing discipline, which tc's hooks are, is added or removed.
    """
    return not tcx.has_tcx()


def obstacle(indexes: Collection[int]) -> str:
    """Return why interfaces of the thread's namespace can't run programs; empty if they can.

    Raises OSError.
    """
    if tcx.has_tcx():
        return ""
    with NetlinkSocket() as socket:
        return clsact.obstacle(socket, indexes)


def hooks_of(socket: NetlinkSocket, owner: HookOwner) -> InterfaceHooks:
    """Return the hooks for an owner's programs in the thread's namespace, which is the socket's."""
    return TcxHooks(owner) if tcx.has_tcx() else ClsactHooks(socket, owner)


def remove_of(socket: NetlinkSocket, owner: HookOwner) -> list[int]:
    """Remove an owner's programs from all interfaces; return the interfaces' indexes.

    Raises OSError.
    """
    kinds: list[InterfaceHooks] = [ClsactHooks(socket, owner)]
    if tcx.has_tcx():
        kinds.append(TcxHooks(owner))
    found = [
        (hooks, index, where)
        for hooks in kinds
        for where in (EGRESS, INGRESS)  # what is sent may need what is received
        for index, _ in hooks.read(where)
    ]
    for hooks, index, where in found:
        hooks.delete(index, where)
    return sorted({index for _, index, _ in found})


def remove_all(socket: NetlinkSocket, use: HookUse) -> list[int]:
    """Remove the programs of all nodes for one use; return the interfaces' indexes.

    Raises OSError.
    """
    return sorted(tcx.remove_all(use) | clsact.remove_all(socket, use))
