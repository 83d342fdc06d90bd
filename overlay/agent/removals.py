"""What remains to be written when a network was removed by another node than its creator.

Owns: who deletes the definition, and when the asking for it ends.
"""

from __future__ import annotations

import asyncio

from overlay.agent.directory import Directory
from overlay.agent.member import Member
from overlay.agent.networks import own_keys
from overlay.core.records import CLUSTER_SCOPE, Removed


def tidy(member: Member, directory: Directory) -> None:
    """As a creator, delete what others asked to remove; as a remover, stop asking then."""
    own = member.node_id
    removals = [
        (origin, value)
        for origin, value in member.node.store.values(CLUSTER_SCOPE, "removed")
        if isinstance(value, Removed)
    ]
    for origin, removal in removals:
        network = directory.defined(removal.vni, removal.creator)
        if network is not None and network.creator == own:
            _delete_soon(member, own_keys(network))
        elif network is None and origin == own:
            key = removal.vni.to_bytes(3, "big") + removal.creator
            _delete_soon(member, [("removed", key)])


def _delete_soon(member: Member, keys: list[tuple[str, bytes]]) -> None:
    """Write outside the event's own call: the store is in the middle of one."""

    def write() -> None:
        member.publish(member.commit(CLUSTER_SCOPE, deletes=keys))

    asyncio.get_running_loop().call_soon(write)
