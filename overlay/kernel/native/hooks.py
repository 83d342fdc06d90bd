"""The removal of the native path's programs from the underlay's interfaces."""

from __future__ import annotations

from overlay.kernel.bpf.hooks import interface_hooks
from overlay.kernel.bpf.hooks.owner import NATIVE, HookOwner
from overlay.kernel.netlink.link_lookup import link_name
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import NodeId


def remove_all(socket: NetlinkSocket) -> list[str]:
    """Remove the programs of all nodes from all interfaces; return descriptions of them."""
    return _texts(socket, interface_hooks.remove_all(socket, NATIVE))


def remove_programs(socket: NetlinkSocket, node_id: NodeId) -> list[str]:
    """Remove a node's programs from all interfaces; return descriptions of them."""
    return _texts(socket, interface_hooks.remove_of(socket, HookOwner(NATIVE, node_id)))


def _texts(socket: NetlinkSocket, indexes: list[int]) -> list[str]:
    return [f"native path's program on {link_name(socket, index)}" for index in indexes]
