"""Which programs at the underlay's interfaces are the native path's, and their removal."""

from __future__ import annotations

from typing import Final

from overlay.kernel.bpf.hooks.interface_hooks import hooks_of
from overlay.kernel.bpf.hooks.interface_hooks import remove_all as remove_all_for
from overlay.kernel.bpf.hooks.owner import INGRESS, HookOwner, HookUse
from overlay.kernel.netlink.link_lookup import link_name
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.model import NodeId

USE: Final = HookUse("ovn_", "overlayd:native", 0x0100_0000)
"""The native path's programs."""


def remove_all(socket: NetlinkSocket) -> list[str]:
    """Remove the programs of all nodes from all interfaces; return descriptions of them."""
    return _texts(socket, remove_all_for(socket, USE))


def remove_programs(socket: NetlinkSocket, node_id: NodeId) -> list[str]:
    """Remove a node's programs from all interfaces; return descriptions of them."""
    hooks = hooks_of(socket, HookOwner(USE, node_id))
    indexes = [index for index, _ in hooks.read(INGRESS)]
    for index in indexes:
        hooks.delete(index, INGRESS)
    return _texts(socket, indexes)


def _texts(socket: NetlinkSocket, indexes: list[int]) -> list[str]:
    return [f"native path's program on {link_name(socket, index)}" for index in indexes]
