"""What remains to be written when a network was removed by another node than its creator.

Owns: who deletes the definition, and when the asking for it ends.
"""

from __future__ import annotations

import asyncio

from overlay.agent.directory import Directory
from overlay.agent.member import Member
from overlay.agent.networks import own_keys
from overlay.core.records import CLUSTER_SCOPE, Key, Participation, Removed, Scope, key_of


def tidy(member: Member, directory: Directory) -> None:
    """As a creator, delete what others asked to remove; as a remover, stop asking then; as who
    took part, do so no more."""
    own = member.node_id
    if member.node.caught_up:
        _end_parts(member, directory)
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


def _end_parts(member: Member, directory: Directory) -> None:
    """Take no part in networks that nobody has any more: the next one of the same number would
    have the names that were given here. Grants stay: others may act by them still (ADR 0002)."""
    own, store = member.node_id, member.node.store
    claimed = {network.vni for _, network in directory.view.network_claims()}
    parts = [
        value
        for value in store.values_of(own, CLUSTER_SCOPE, "participation")
        if isinstance(value, Participation) and value.vni not in claimed and not value.forwards
    ]
    for part in parts:
        scope = Scope(part.vni)
        names = [key_of(each) for each in store.values_of(own, scope, "name")]
        if names:
            _delete_soon(member, names, scope)
    if parts:
        _delete_soon(member, [key_of(part) for part in parts])


def _delete_soon(member: Member, keys: list[Key], scope: Scope = CLUSTER_SCOPE) -> None:
    """Write outside the event's own call: the store is in the middle of one."""

    def write() -> None:
        member.publish(member.commit(scope, deletes=keys))

    asyncio.get_running_loop().call_soon(write)
