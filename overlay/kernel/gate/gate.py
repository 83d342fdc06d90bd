"""The gate of a node in this host's kernel: its namespace, pairs, programs and maps.

Owns: reading and writing a `GateState`, and the order of it: what leads packets to the namespace
comes last, and goes first. Each agent fills maps of its own, and then replaces its predecessor's
programs, each in one step; connections that the namespace translates live on.
Does not: write the rules inside, or decide what is wanted.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

from overlay.core.dataplane.link_state import HOST_LINK_PREFIX
from overlay.core.gate.port_block import PortBlock
from overlay.core.gate.state import GatedInterface, GateState
from overlay.errors import OverlayError
from overlay.kernel import netns
from overlay.kernel.gate import hooks, loopback, namespace
from overlay.kernel.gate.hooks import SENT, GateHooks, Hook
from overlay.kernel.gate.maps import GatedPorts, GateInterface, GateMaps
from overlay.kernel.gate.namespace import GateNamespace
from overlay.kernel.gate.pairs import GatePairs, Pair
from overlay.kernel.gate.virtual_neighbors import VirtualNeighbors
from overlay.kernel.netlink.link_lookup import all_links
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import Mac, NodeId


class Gate:
    """The gate of one node; the thread's namespace is the host's in every call."""

    def __init__(self, node_id: NodeId, run_dir: Path | None = None) -> None:
        """Create the maps and load the programs. Raises OverlayError if the kernel refuses.

        `run_dir`: where what it changes on the host's loopback is recorded (`loopback`).
        """
        self._node_id = node_id
        self._run_dir = run_dir
        self._name = namespace.namespace_name(node_id)
        self._namespace: GateNamespace | None = None
        self._written = GateState()
        try:
            with ExitStack() as undo:
                self._socket = NetlinkSocket()
                undo.callback(self._socket.close)
                self._maps = GateMaps()
                undo.callback(self._maps.close)
                self._hooks = GateHooks(node_id, self._maps, self._socket)
                undo.pop_all()
        except OSError as error:
            raise OverlayError(
                "the kernel rejected the gate's programs",
                why=str(error.strerror or error),
                hint="The host's own namespace can translate, as it does on older kernels",
            ) from error

    @property
    def path(self) -> Path:
        """Return the file that names the namespace, which `prepare` creates."""
        return netns.path_of(self._name)

    def close(self) -> None:
        """Close sockets and descriptors; packets go on as before."""
        self._socket.close()
        self._hooks.close()
        self._maps.close()
        self._close_namespace()

    def _close_namespace(self) -> None:
        if self._namespace is not None:
            self._namespace.close()
            self._namespace = None

    # --- reading ------------------------------------------------------------------------

    def read(self) -> GateState:
        """Return the state of this object's programs; those of an earlier agent do not count.

        An interface is not in it if any part of its way is missing or altered. Raises OSError.
        """
        networks = frozenset(self._maps.ranges())
        ports = self._maps.ports(networks)
        own = self._maps.own_addresses() or frozenset()
        if ports is None:
            return GateState(own=own, networks=networks)
        interfaces = frozenset(self._whole_interfaces()) if own else frozenset[GatedInterface]()
        virtual = self._neighbors(self._written).read()
        return GateState(interfaces, own, networks, ports.published, ports.block, virtual)

    def _neighbors(self, state: GateState) -> VirtualNeighbors:
        macs = {each.interface_index: each.mac for each in state.interfaces if _is_network(each)}
        return VirtualNeighbors(self._socket, macs)

    def _whole_interfaces(self) -> list[GatedInterface]:
        inside = self._namespace
        if inside is None or not inside.is_named:
            return []
        found = self._pairs(inside).read(self._written)
        known = set(self._maps.gate_interfaces())
        rows = [each for each in self._written.interfaces if each.interface_index in found]
        needed = {each: self._all_hooks(each, found[each.interface_index]) for each in rows}
        missing = self._hooks.missing({hook for each in rows for hook in needed[each]}, inside)
        return [
            each
            for each in rows
            if GateInterface(each.interface_index, each.mac, found[each.interface_index].end)
            in known
            and missing.isdisjoint(needed[each])
            and (each.kind != "loopback" or inside.is_loopback_ready())
        ]

    @staticmethod
    def _all_hooks(interface: GatedInterface, pair: Pair) -> list[Hook]:
        return [*hooks.gate_hooks(interface, pair), *hooks.interface_hooks(interface)]

    def refused_packets(self) -> int:
        """Return how many packets users of this host sent to containers from others' addresses.

        They were dropped. The count begins with this object.
        """
        return self._maps.refused_packets()

    # --- writing ------------------------------------------------------------------------

    def prepare(self) -> None:
        """Open the namespace, or create it, so that rules can be written there.

        Raises OverlayError or OSError.
        """
        self._open()

    def keep_block(self, block: PortBlock) -> None:
        """Record the ports with which it masquerades: from then on it stands (`kept_block`).

        Raises OverlayError or OSError.
        """
        self._open().keep_block(block)

    def _open(self) -> GateNamespace:
        if self._namespace is None:
            self._namespace = GateNamespace(self._name, self._run_dir)
        elif not self._namespace.is_named:
            self._namespace.restore_name()
        return self._namespace

    def write(self, before: GateState, after: GateState) -> None:
        """Change what is led to the namespace. Raises OverlayError or OSError.

        An interface or a pair that vanishes meanwhile is no failure: the next pass sees it.
        """
        inside = self._open()
        self._written = after
        ways = self._put_pairs(inside, before, after)
        self._put_entries(before, after)
        rows = [each for each in after.interfaces if each.interface_index in ways]
        wanted = [
            hook for each in rows for hook in self._all_hooks(each, ways[each.interface_index])
        ]
        missing = self._hooks.missing(wanted, inside)
        for hook in sorted(missing, key=lambda each: _order(each, rows)):
            self._hooks.put(hook, inside)
        neighbors = self._neighbors(after)
        there = neighbors.read()  # also what a former agent has left
        neighbors.put(after.virtual - there)
        neighbors.delete(there - after.virtual)
        self._hooks.delete_surplus(wanted)
        self._delete_entries(inside, before, after)

    def _put_pairs(
        self, inside: GateNamespace, before: GateState, after: GateState
    ) -> dict[int, Pair]:
        """Create and repair pairs; return those that there are, by interface."""
        known = self._pairs(inside)
        ways = known.read(after)
        for each in sorted(after.interfaces):
            if each.kind == "loopback":
                inside.prepare_loopback()
            is_known = each in before.interfaces and each.interface_index in ways
            if each.interface_index not in ways:
                made = known.put(each, after)
                if made is None:
                    continue
                ways[each.interface_index] = made
            if not is_known:
                self._know(
                    GateInterface(each.interface_index, each.mac, ways[each.interface_index].end)
                )
        return ways

    def _know(self, interface: GateInterface) -> None:
        try:
            self._maps.put_interface(interface)
        except OSError as error:
            if error.errno != errno.EINVAL:  # else the pair has just been deleted
                raise

    def _put_entries(self, before: GateState, after: GateState) -> None:
        self._maps.put_own(after.own - before.own)
        for network in after.networks - before.networks:
            self._maps.put_range(network)
        self._maps.put_bits(GatedPorts(after.block, after.published), after.networks)

    def _delete_entries(self, inside: GateNamespace, before: GateState, after: GateState) -> None:
        kept = {(each.base, each.length) for each in after.networks}
        for base, length in {(each.base, each.length) for each in before.networks} - kept:
            self._maps.delete_range(base, length)
        self._maps.delete_own(before.own - after.own)
        indexes = {each.interface_index for each in after.interfaces}
        for known in list(self._maps.gate_interfaces()):
            if known.interface not in indexes:
                self._maps.delete_interface(known.interface, known.end)
        self._pairs(inside).delete_surplus(after)
        if not any(each.kind == "loopback" for each in after.interfaces):
            inside.restore_loopback()

    def _pairs(self, inside: GateNamespace) -> GatePairs:
        return GatePairs(self._node_id, self._socket, inside)

    def remove(self) -> None:
        """Remove all of it (`remove_gate`). Raises OverlayError or OSError."""
        self._written = GateState()
        self._close_namespace()
        remove_gate(self._node_id, self._run_dir)


OTHER_AGENT: Final = "another agent on this host has a gate"
_PASSING: Final = (errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)


def _order(hook: Hook, rows: list[GatedInterface]) -> tuple[bool, bool, int, int]:
    """Return the place in the order of writing: the gate, what is received, what is sent.

    A network's interface first sends, as what is received elsewhere may need that.
    """
    is_interface = not hook.is_inside and any(each.interface_index == hook.link for each in rows)
    where = 0 if hook.program == SENT else hook.where
    return is_interface, not hook.is_inside, where, hook.link


def remove_namespace(name: str, run_dir: Path | None = None) -> bool:
    """Remove a gate's namespace, and what it changed; return whether there was one.

    Raises OSError.
    """
    if netns.exists(name):
        with closing(GateNamespace(name, run_dir)) as inside:
            inside.restore_loopback()
            inside.delete_pairs()
    else:
        loopback.restore_left(run_dir)
    return netns.remove(name)


def remove_gate(node_id: NodeId, run_dir: Path | None = None) -> list[str]:
    """Remove a node's programs, then the namespace with its connections.

    Returns a description of the namespace if there was one. Raises OverlayError or OSError.
    """
    with NetlinkSocket() as host:
        _delete_neighbors(host, node_id)
        hooks.remove_programs(host, node_id)
    name = namespace.namespace_name(node_id)
    return [f"gate {name}"] if remove_namespace(name, run_dir) else []


def _delete_neighbors(host: NetlinkSocket, node_id: NodeId) -> None:
    """Delete the next hops of virtual addresses, by a node's interfaces on its networks."""
    own = node_id[:3].hex()
    macs = {
        each.index: Mac(each.mac)
        for each in all_links(host)
        if each.name.startswith(HOST_LINK_PREFIX) and each.name.endswith(own)
    }
    neighbors = VirtualNeighbors(host, macs)
    neighbors.delete(neighbors.read())


def existing(interfaces: Iterable[GatedInterface]) -> frozenset[GatedInterface]:
    """Return those that the host still has: one that goes loses its hooks when it is unlisted."""
    with NetlinkSocket() as host:
        there = {link.index for link in all_links(host)}
    return frozenset(each for each in interfaces if each.interface_index in there)


def _is_network(interface: GatedInterface) -> bool:
    return interface.kind == "network"


def kept_block(node_id: NodeId) -> PortBlock | None:
    """Return the ports with which a node's gate masquerades, perhaps of its former agent.

    None if it has no gate, or one that never was whole. Raises OverlayError or OSError.
    """
    name = namespace.namespace_name(node_id)
    if not netns.exists(name):
        return None
    inside = GateNamespace(name)
    try:
        return inside.kept_block()
    finally:
        inside.close()


def refusal(node_id: NodeId) -> str:
    """Return why a node can't have a gate in the thread's namespace; empty if it can.

    Each of two gates on an interface would take what the other has returned, without end. Raises
    OverlayError if the host is short of memory or descriptors, OSError.
    """
    with NetlinkSocket() as host:
        if hooks.has_others(host, node_id):
            return OTHER_AGENT
    try:
        Gate(NodeId(bytes(16))).close()
    except OverlayError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _PASSING:
            raise
        return f"the kernel rejects the gate's programs: {error.why or error.what}"
    return ""
