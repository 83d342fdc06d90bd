"""Reject segments that their origin was not allowed to write.

Owns: the restrictions on what a member may write in its own log.
"""

from __future__ import annotations

from collections.abc import Collection

from overlay.core.log.store import Store
from overlay.core.membership.machine import Membership
from overlay.core.protocol.interfaces import Signer
from overlay.core.protocol.records import ForgottenNode, ReclaimStatement, Segment
from overlay.model import NodeId


def violates_forget_rules(
    segment: Segment,
    forgotten: Collection[NodeId],
    membership: Membership,
    signer: Signer,
    now: float,
) -> bool:
    """Return whether a segment forgets a live node without a warrant, or states that it is.

    Live means that this node hears from it, or is it. Such a segment is rejected, not stored:
    anti-entropy brings it again, and by then the node may be dead here too, or the declaration
    known that the statement is about. So a member that lies only stops its own log. A statement
    alone would take a node's addresses from it, as a declaration does.
    """
    declared = [each.value for each in segment.entries if isinstance(each.value, ForgottenNode)]
    stated = {
        each.value.node_id for each in segment.entries if isinstance(each.value, ReclaimStatement)
    }
    stated.difference_update(record.node_id for record in declared)
    claims = [*declared, *map(ForgottenNode, sorted(stated))]
    return any(
        record.node_id not in forgotten
        and membership.seems_alive(record.node_id, now)
        and not (record.warrant and signer.verify_warrant(record))
        for record in claims
    )


def counted_declarations(segment: Segment, store: Store, signer: Signer) -> list[NodeId]:
    """Return the nodes that an applied segment declares gone, as far as that counts.

    Not those beyond the bound of its origin's log, unless the authority has warranted them: a
    member may make up any number of ids.
    """
    return [
        entry.value.node_id
        for entry in segment.entries
        if isinstance(entry.value, ForgottenNode)
        and (
            store.value(segment.origin, segment.scope, entry.key) is not None
            or (bool(entry.value.warrant) and signer.verify_warrant(entry.value))
        )
    ]
