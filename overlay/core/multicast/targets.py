"""The hosts that frames for a group go to.

A group that no host has said anything about is flooded; so is one that all hosts want, and one that
more want than is worth a row each. A host that has said nothing wants all.

Owns: that choice. Does not: know who is alive; its caller leaves out what dead hosts have said.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeAlias

from overlay import limits
from overlay.core.multicast.groups import is_prunable, mac_of
from overlay.core.multicast.interest import Interest
from overlay.model import Ip, Mac, NodeId

GroupTargets: TypeAlias = tuple[tuple[Mac, frozenset[Ip]], ...]
"""By MAC, the VTEPs that its frames go to; none: no other host wants them."""


def group_targets(
    own: NodeId, vteps: Mapping[NodeId, Ip], interests: Mapping[NodeId, Interest]
) -> GroupTargets:
    """Return where frames go whose groups some host has spoken about, by MAC.

    `vteps` are those of the other hosts with a sandbox, `interests` those of hosts that count.
    """
    wanted: dict[Mac, set[NodeId]] = {}
    for node_id, interest in sorted(interests.items()):
        if node_id != own and node_id not in vteps:
            continue
        for group in filter(is_prunable, interest.groups):
            wanted.setdefault(mac_of(group), set()).add(node_id)
    if not wanted:
        return ()
    everything = {
        node_id for node_id in vteps if node_id not in interests or interests[node_id].wants_all
    }
    found = []
    for mac in sorted(wanted)[: limits.MULTICAST_MACS_MAX]:
        hosts = (wanted[mac] | everything) & vteps.keys()
        if len(hosts) < len(vteps) and len(hosts) <= limits.MULTICAST_TARGETS_MAX:
            found.append((mac, frozenset(vteps[each] for each in hosts)))
    return tuple(found)
