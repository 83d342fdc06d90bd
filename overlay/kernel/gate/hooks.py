"""The gate's programs at the hooks of interfaces, in the host's namespace and inside.

They pass what they do not take on to the programs of others, so that the order does not matter.
Owns: which program runs where; the programs' names, by node.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Container, Iterable, Mapping
from typing import Final, NamedTuple

from overlay.core.gate.state import GatedInterface, InterfaceKind
from overlay.kernel import netns
from overlay.kernel.bpf import syscall, tcx
from overlay.kernel.bpf.syscall import TCX_EGRESS, TCX_INGRESS
from overlay.kernel.gate.maps import GateMaps
from overlay.kernel.gate.pairs import Pair
from overlay.kernel.gate.programs import inner_ends, inward, outer_ends, outward
from overlay.model import NodeId

_PREFIX: Final = "ovg_"  # of the programs' names
_RECEIVES: Final[Mapping[InterfaceKind, str]] = {
    "outside": "inward", "network": "inward", "loopback": "loopback"
}  # fmt: skip
SENT: Final = "sent"
"""The program for what a network's interface sends."""

_SENDS: Final[Mapping[InterfaceKind, str]] = {"outside": "outward", "network": SENT}
_KINDS: Final[tuple[InterfaceKind, ...]] = ("outside", "network", "loopback")


class Hook(NamedTuple):
    """A program at a hook of an interface: a link's index in the host's namespace, or inside."""

    is_inside: bool
    link: int
    where: int
    program: str


class GateHooks:
    """The programs of one node, loaded; they live as long as this object or a hook."""

    def __init__(self, node_id: NodeId, maps: GateMaps) -> None:
        """Load the programs. Raises OSError if the kernel refuses."""
        self._name = _program_name(node_id)
        self._programs: dict[str, int] = {}
        codes = {
            "inward": inward.inward_program(maps),
            "loopback": inward.loopback_program(maps),
            "outward": outward.outward_program(maps),
            SENT: outward.sent_program(maps),
            "entering": inner_ends.entering_program(),
            "exiting": inner_ends.exiting_program(signs_own=False),
            "exiting to loopback": inner_ends.exiting_program(signs_own=True),
            **{_returning(kind): outer_ends.returning_program(maps, kind) for kind in _KINDS},
        }
        try:
            for role, code in codes.items():
                self._programs[role] = syscall.load(code, self._name)
        except OSError:
            self.close()
            raise
        self._ids = {role: syscall.program_id(fd) for role, fd in self._programs.items()}

    def close(self) -> None:
        """Close the descriptors; programs at hooks stay in force."""
        while self._programs:
            os.close(self._programs.popitem()[1])

    def put(self, hook: Hook, gate_fd: int) -> None:
        """Run a program at a hook, in place of this node's former one. Raises OSError."""
        program = self._programs[hook.program]
        if not hook.is_inside:
            tcx.put(hook.link, program, self._name, hook.where)
            return
        with netns.inside(gate_fd):
            tcx.put(hook.link, program, self._name, hook.where)

    def missing(self, hooks: Iterable[Hook], gate_fd: int) -> set[Hook]:
        """Return those that do not run exactly this object's program."""
        wanted = list(hooks)
        missing = {each for each in wanted if not each.is_inside and not self._runs(each)}
        with netns.inside(gate_fd):
            return missing | {each for each in wanted if each.is_inside and not self._runs(each)}

    def _runs(self, hook: Hook) -> bool:
        found = [number for number, name in tcx.named(hook.link, hook.where) if name == self._name]
        return found == [self._ids[hook.program]]

    def delete_surplus(self, wanted: Iterable[Hook]) -> None:
        """Remove this node's programs from all other hooks of the host. Raises OSError."""
        _delete(self._name, {(each.link, each.where) for each in wanted if not each.is_inside})


def gate_hooks(interface: GatedInterface, pair: Pair) -> list[Hook]:
    """Return the hooks of both ends of a pair."""
    exiting = "exiting to loopback" if interface.kind == "loopback" else "exiting"
    return [
        Hook(True, pair.inner, TCX_INGRESS, "entering"),
        Hook(True, pair.inner, TCX_EGRESS, exiting),
        Hook(False, pair.end, TCX_INGRESS, _returning(interface.kind)),
    ]


def interface_hooks(interface: GatedInterface) -> list[Hook]:
    """Return the hooks of an interface of the host."""
    hooks = [Hook(False, interface.interface_index, TCX_INGRESS, _RECEIVES[interface.kind])]
    if interface.kind in _SENDS:
        hooks.append(Hook(False, interface.interface_index, TCX_EGRESS, _SENDS[interface.kind]))
    return hooks


def _returning(kind: InterfaceKind) -> str:
    return f"returning to {kind}"


def _program_name(node_id: NodeId) -> str:
    return f"{_PREFIX}{node_id[:3].hex()}"


def _delete(name: str, kept: Container[tuple[int, int]]) -> None:
    for where in (TCX_EGRESS, TCX_INGRESS):  # what is sent needs what is received
        for index in {index for index, _ in tcx.programs(name, where)}:
            if (index, where) not in kept:
                tcx.delete(index, name, where)


def remove_programs(node_id: NodeId) -> None:
    """Remove a node's programs from all interfaces of the thread's namespace. Raises OSError."""
    if tcx.has_tcx():
        _delete(_program_name(node_id), ())


def has_others(node_id: NodeId) -> bool:
    """Return whether an interface of the thread's namespace runs a program of another node."""
    own = _program_name(node_id)
    return any(
        name.startswith(_PREFIX) and name != own
        for index, _ in socket.if_nameindex()
        for where in (TCX_INGRESS, TCX_EGRESS)
        for _, name in tcx.named(index, where)
    )


def remove_all() -> list[int]:
    """Remove the programs of all nodes from all interfaces of the thread's namespace.

    Returns the interfaces' indexes.
    """
    found = {
        index for where in (TCX_EGRESS, TCX_INGRESS) for index in tcx.remove_all(_PREFIX, where)
    }
    return sorted(found)
