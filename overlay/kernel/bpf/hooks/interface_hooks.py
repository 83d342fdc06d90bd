"""The hooks of interfaces for an owner's programs: tcx, else those of tc.

Owns: the choice. An agent of before may have used the other kind, after a change of the kernel
alone; so what is removed is looked for at both.
"""

from __future__ import annotations

from typing import Protocol

from overlay.kernel.bpf.hooks import clsact, tcx
from overlay.kernel.bpf.hooks.clsact import ClsactHooks
from overlay.kernel.bpf.hooks.owner import HookOwner, HookUse
from overlay.kernel.bpf.hooks.tcx import TcxHooks
from overlay.kernel.netlink.socket import NetlinkSocket


class InterfaceHooks(Protocol):
    """The programs of one owner on interfaces; `where` is `INGRESS` or `EGRESS`."""

    def read(self, where: int) -> list[tuple[int, int]]:
        """Return the interfaces, by index, whose hook runs a program of this owner, and its id."""

    def at(self, index: int, where: int) -> list[int]:
        """Return the ids of this owner's programs at an interface's hook."""

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


def hooks_of(socket: NetlinkSocket, owner: HookOwner) -> InterfaceHooks:
    """Return the hooks for an owner's programs in the thread's namespace, which is the socket's."""
    return TcxHooks(owner) if tcx.has_tcx() else ClsactHooks(socket, owner)


def remove_all(socket: NetlinkSocket, use: HookUse) -> list[int]:
    """Remove the programs of all nodes for one use; return the interfaces' indexes.

    Raises OSError.
    """
    return sorted(tcx.remove_all(use) | clsact.remove_all(socket, use))
