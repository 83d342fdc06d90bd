"""Reject segments that their origin was not allowed to write.

Owns: the restrictions on what a member may write in its own log.
"""

from __future__ import annotations

from collections.abc import Collection

from overlay.core.log.store import Store
from overlay.core.membership.machine import Membership
from overlay.core.protocol.interfaces import Signer
from overlay.core.protocol.records import ForgottenNode, Segment
from overlay.model import NodeId


def violates_forget_rules(
    segment: Segment,
    forgotten: Collection[NodeId],
    membership: Membership,
    signer: Signer,
    now: float,
) -> bool:
    """Return whether a segment forgets a live node without a warrant.

    Live means that this node hears from it, or is it. Such a segment is rejected, not stored:
    anti- entropy brings it again, and by then the node may be dead here too. So a member that
    lies only stops its own log.
    """
    return any(
        isinstance(entry.value, ForgottenNode)
        and entry.value.node_id not in forgotten
        and membership.seems_alive(entry.value.node_id, now)
        and not (entry.value.warrant and signer.verify_warrant(entry.value))
        for entry in segment.entries
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
