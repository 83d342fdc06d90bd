"""Which segments count, although their origin signed them.

Owns: what a member may not say although it is its own log that it says it in.
"""

from __future__ import annotations

from collections.abc import Collection

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
    """Say whether a segment declares a node gone that this node hears (or is), and the authority
    did not.

    Such a segment is refused, not put aside: repair brings it again, and by then the node may be
    dead here too. So a member that lies only keeps its own log from going on.
    """
    return any(
        isinstance(entry.value, ForgottenNode)
        and entry.value.node_id not in forgotten
        and membership.seems_alive(entry.value.node_id, now)
        and not (entry.value.warrant and signer.verify_warrant(entry.value))
        for entry in segment.entries
    )
