"""The gate's programs at the hooks of interfaces, in the host's namespace and inside.

They pass what they do not take on to the programs of others, so that the order does not matter.
At tc's hooks the order of others does matter, before Linux 6.6 (the gate's guide).
Owns: which program runs where.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from overlay.core.gate.state import GatedInterface, InterfaceKind
from overlay.kernel import netns
from overlay.kernel.bpf import syscall
from overlay.kernel.bpf.hooks import interface_hooks as programs
from overlay.kernel.bpf.hooks.interface_hooks import InterfaceHooks, hooks_of
from overlay.kernel.bpf.hooks.owner import EGRESS, GATE, INGRESS, HookOwner, Place
from overlay.kernel.gate.maps import GateMaps
from overlay.kernel.gate.namespace import GateNamespace
from overlay.kernel.gate.pairs import Pair
from overlay.kernel.gate.programs import inner_ends, inward, outer_ends, outward
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import NodeId

_RECEIVES: Final[Mapping[InterfaceKind, str]] = {
    "outside": "inward", "network": "inward", "loopback": "loopback"
}  # fmt: skip
SENT: Final = "sent"
"""The program for what a network's interface sends."""

_SENDS: Final[Mapping[InterfaceKind, str]] = {"outside": "outward", "network": SENT}
_REMOVED: Final = (EGRESS, INGRESS)  # in this order: what is sent needs what is received
_KINDS: Final[tuple[InterfaceKind, ...]] = ("outside", "network", "loopback")


class Hook(NamedTuple):
    """A program at a hook of an interface: a link's index in the host's namespace, or inside."""

    is_inside: bool
    link: int
    where: int
    program: str

    @property
    def place(self) -> Place:
        """Return interface and hook, in the hook's namespace."""
        return self.link, self.where


class GateHooks:
    """The programs of one node, loaded; they live as long as this object or a hook."""

    def __init__(self, node_id: NodeId, maps: GateMaps, host: NetlinkSocket) -> None:
        """Load the programs. Raises OSError if the kernel refuses."""
        self._owner = HookOwner(GATE, node_id)
        self._host = hooks_of(host, self._owner)
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
                self._programs[role] = syscall.load(code, self._owner.program_name)
        except OSError:
            self.close()
            raise
        self._ids = {role: syscall.program_id(fd) for role, fd in self._programs.items()}

    def close(self) -> None:
        """Close the descriptors; programs at hooks stay in force."""
        while self._programs:
            os.close(self._programs.popitem()[1])

    def put(self, hook: Hook, gate: GateNamespace) -> None:
        """Run a program at a hook, in place of this node's former one. Raises OSError."""
        program = self._programs[hook.program]
        if not hook.is_inside:
            self._host.put(hook.link, program, hook.where)
            return
        with netns.inside(gate.fd):
            hooks_of(gate.socket, self._owner).put(hook.link, program, hook.where)

    def missing(self, hooks: Iterable[Hook], gate: GateNamespace) -> set[Hook]:
        """Return those that do not run exactly this object's program."""
        wanted = list(hooks)
        here = [each for each in wanted if not each.is_inside]
        missing = self._missing_of(self._host, here)
        with netns.inside(gate.fd):
            inside = hooks_of(gate.socket, self._owner)
            return missing | self._missing_of(inside, [each for each in wanted if each.is_inside])

    def _missing_of(self, hooks: InterfaceHooks, wanted: list[Hook]) -> set[Hook]:
        found = hooks.at(each.place for each in wanted)
        return {each for each in wanted if found[each.place] != [self._ids[each.program]]}

    def delete_surplus(self, wanted: Iterable[Hook]) -> None:
        """Remove this node's programs from all other hooks of the host. Raises OSError."""
        kept = {each.place for each in wanted if not each.is_inside}
        for where in _REMOVED:
            for index in {index for index, _ in self._host.read(where)}:
                if (index, where) not in kept:
                    self._host.delete(index, where)


def gate_hooks(interface: GatedInterface, pair: Pair) -> list[Hook]:
    """Return the hooks of both ends of a pair."""
    exiting = "exiting to loopback" if interface.kind == "loopback" else "exiting"
    return [
        Hook(True, pair.inner, INGRESS, "entering"),
        Hook(True, pair.inner, EGRESS, exiting),
        Hook(False, pair.end, INGRESS, _returning(interface.kind)),
    ]


def interface_hooks(interface: GatedInterface) -> list[Hook]:
    """Return the hooks of an interface of the host."""
    hooks = [Hook(False, interface.interface_index, INGRESS, _RECEIVES[interface.kind])]
    if interface.kind in _SENDS:
        hooks.append(Hook(False, interface.interface_index, EGRESS, _SENDS[interface.kind]))
    return hooks


def _returning(kind: InterfaceKind) -> str:
    return f"returning to {kind}"


def remove_programs(socket: NetlinkSocket, node_id: NodeId) -> None:
    """Remove a node's programs from all interfaces of the socket's namespace. Raises OSError.

    That is also the thread's.
    """
    programs.remove_of(socket, HookOwner(GATE, node_id))


def has_others(socket: NetlinkSocket, node_id: NodeId) -> bool:
    """Return whether an interface of the socket's namespace runs a program of another node."""
    return hooks_of(socket, HookOwner(GATE, node_id)).has_others()


def remove_all(socket: NetlinkSocket) -> list[int]:
    """Remove the programs of all nodes from all interfaces of the thread's namespace.

    It is also the socket's. Returns the interfaces' indexes. Raises OSError.
    """
    return programs.remove_all(socket, GATE)
