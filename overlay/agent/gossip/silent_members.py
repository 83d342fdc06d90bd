"""Report members that do not answer, or this host where it is the cause.

A host that hears few of many members is more likely cut off than they are down: then one line
says that, and nobody is advised to forget members that are well elsewhere.

Owns: these lines. Does not: decide states (`core.membership`), or know the underlay's error, which
its controller reports.
"""

from __future__ import annotations

from collections.abc import Iterator

from overlay.agent.gossip.service import GossipService
from overlay.agent.process.controller import Fault
from overlay.agent.records.directory import Directory
from overlay.core.membership.machine import Membership
from overlay.core.protocol.messages import MemberState
from overlay.model import node_text

_NAMES_SHOWN_MAX = 8
_SILENT = (MemberState.SUSPECT, MemberState.DEAD)


def few_heard(membership: Membership) -> tuple[int, int] | None:
    """Return how many members answer, of how many, if that is less than half; else None.

    Both include this node. Of two members neither can tell which one is cut off.
    """
    heard = 1 + membership.count(MemberState.ALIVE)
    silent = sum(membership.count(state) for state in _SILENT)
    return (heard, heard + silent) if silent > heard else None


def silent_member_faults(
    gossip: GossipService, directory: Directory, *, underlay_works: bool
) -> Iterator[Fault]:
    """Yield each member that does not answer, or one line if this host seems to be the cause."""
    membership = gossip.node.membership
    if not underlay_works:
        return  # it is the cause, and it has its own line
    if membership.partitioned is not None:
        seen, total = membership.partitioned
        yield Fault(
            f"partitioned: I see {seen} of {total}",
            "Check this host's underlay; forwarding is left unchanged",
            "error",
        )
        return
    silent = sorted(
        (directory.node_name(member.node_id), member.state.name.lower(), member.node_id)
        for member in membership.members()
        if member.state in _SILENT
    )
    port = gossip.cluster.gossip_port
    few = few_heard(membership)
    if few is not None:
        names = ", ".join(name for name, _, _ in silent[:_NAMES_SHOWN_MAX])
        more = f" and {len(silent) - _NAMES_SHOWN_MAX} more" * (len(silent) > _NAMES_SHOWN_MAX)
        yield Fault(
            f"this host hears {few[0]} of {few[1]} members, itself included: {names}{more} do not "
            "answer",
            "The cause is probably here: check this host's underlay, and that a firewall lets "
            f"{port}/udp pass. 'overlayd members' on another host shows what that one hears",
            "error",
        )
        return
    present = {directory.node_name(each) for each in (*membership.alive(), gossip.node_id)}
    for name, state, node_id in silent:
        if name in present:
            yield _former_identity(name, state, node_text(node_id))
            continue
        yield Fault(
            f"{name} is {state}",
            f"Its agent does not answer on port {port}/udp; its containers stay reachable by "
            f"address. If it is gone for good: overlayd forget {name}",
        )


def _former_identity(name: str, state: str, shown_id: str) -> Fault:
    """Return the line about a member whose name a live one has: it is known by its id only."""
    return Fault(
        f"{name} ({shown_id}) is {state}, and another member has its name",
        f"If that host has joined anew, this is its former identity: overlayd forget {shown_id}",
    )
