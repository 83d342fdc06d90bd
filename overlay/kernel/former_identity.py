"""Remove what another node identity of this host has left in the kernel.

Owns: the names that tell whose a sandbox, an uplink or a table is: each has the first bytes of the
node's id. Only objects that are marked as overlayd's, too, are removed.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path

from overlay.core.dataplane.link_state import HOST_LINK_PREFIX
from overlay.errors import NotFoundError, UsageError
from overlay.kernel import netns
from overlay.kernel.evpn.shadow import shadow_name
from overlay.kernel.gate.gate import remove_gate
from overlay.kernel.host import ip_forwarding
from overlay.kernel.native.receiver import remove_programs
from overlay.kernel.netlink import link_decoder, link_requests
from overlay.kernel.netlink.link_lookup import links_best_effort
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.nft import underlay_filter
from overlay.kernel.nft.host import host_table
from overlay.kernel.nft.host.opened_interfaces import read_opened
from overlay.kernel.nft.tables import NftMissingError, NftTables
from overlay.kernel.sandbox.container_namespace import NETWORK_SANDBOX_NAME
from overlay.kernel.sandbox.sandbox import Sandbox
from overlay.kernel.services import leftovers
from overlay.model import NodeId


def sandboxes_of(node_id: NodeId) -> list[str]:
    """Return the names of the sandboxes of a node on this host."""
    ending = f"-{node_id[:3].hex()}"
    return [
        name
        for name in netns.names()
        if NETWORK_SANDBOX_NAME.fullmatch(name) and name.endswith(ending)
    ]


def abandoned_sandboxes() -> list[str]:
    """Return the names of the sandboxes on this host that no other process has open."""
    return sorted(
        name for name in netns.names() if NETWORK_SANDBOX_NAME.fullmatch(name) and not is_held(name)
    )


def is_held(sandbox: str) -> bool:
    """Return whether another process has a sandbox open, as the agent that it belongs to does."""
    identity = netns.names_identity(sandbox)
    if identity is None:
        return False
    for process in Path("/proc").iterdir():
        if not process.name.isdigit() or int(process.name) == os.getpid():
            continue
        with suppress(OSError):  # the process has ended
            if any(_identity(each) == identity for each in (process / "fd").iterdir()):
                return True
    return False


def _identity(descriptor: Path) -> tuple[int, int] | None:
    """Return what an entry of /proc/PID/fd refers to, whatever it was opened by."""
    try:
        found = descriptor.stat()
    except OSError:  # closed meanwhile
        return None
    return found.st_dev, found.st_ino


def remove_objects(node_id: NodeId) -> list[str]:
    """Remove a node's programs, gate, sandboxes, uplinks and tables; return descriptions of them.

    The native path's first: they would go on to send frames into sandboxes that are gone. Raises
    OverlayError or OSError.
    """
    removed = remove_programs(node_id)
    shadows = [shadow_name(node_id[:3].hex())]
    for name in [*sandboxes_of(node_id), *filter(netns.exists, shadows)]:
        try:
            Sandbox.open(name, create=False).destroy()
        except (NotFoundError, UsageError):  # a name without a namespace
            netns.remove(name)
        removed.append(f"sandbox {name}")
    removed += leftovers.remove_tables(node_id)
    removed += _remove_uplinks(node_id) + _close_interfaces(node_id)
    removed += _remove_tables(node_id)
    return removed + remove_gate(node_id)  # last: what containers send must not pass it by


def _remove_uplinks(node_id: NodeId) -> list[str]:
    removed = []
    name = re.compile(rf"{HOST_LINK_PREFIX}[0-9a-f]{{6}}{node_id[:3].hex()}")
    with NetlinkSocket() as socket:
        for link in links_best_effort(socket):
            if name.fullmatch(link.name) and link_decoder.is_overlayd_link(link.alias):
                socket.transact([link_requests.delete_link(link.index)])
                removed.append(f"interface {link.name}")
    return removed


def _close_interfaces(node_id: NodeId) -> list[str]:
    """Have interfaces forward no longer that only the node's table keeps from being a router's.

    Where this host's present identity needs them, it opens them again, and guards them.
    """
    tables = read_opened()
    own = tables.pop(host_table.table_name(node_id), frozenset())
    closed = ip_forwarding.restore_guarded(own.difference(*tables.values()))
    return [f"setting of net/{name}" for name in closed]


def _remove_tables(node_id: NodeId) -> list[str]:
    names = {host_table.table_name(node_id), underlay_filter.table_name(node_id)}
    try:
        tables = NftTables()
    except NftMissingError:
        return []
    try:
        found = [(family, name) for family, name in tables.names() if name in names]
        return [f"nftables table {name}" for family, name in found if tables.delete(family, name)]
    finally:
        tables.close()
