"""Which segments count, although their origin signed them.

Owns: what a member may not say although it is its own log that it says it in.
"""

from __future__ import annotations

from collections.abc import Collection

from overlay.core.membership.machine import Membership
from overlay.core.protocol.interfaces import Notary
from overlay.core.protocol.records import Forgotten, Segment
from overlay.model import NodeId


def shuts_out_the_living(
    segment: Segment,
    forgotten: Collection[NodeId],
    membership: Membership,
    notary: Notary,
    now: float,
) -> bool:
    """Say whether a segment declares a node gone that this node hears (or is), and the authority
    did not.

    Such a segment is refused, not put aside: repair brings it again, and by then the node may be
    dead here too. So a member that lies only keeps its own log from going on.
    """
    return any(
        isinstance(entry.value, Forgotten)
        and entry.value.node_id not in forgotten
        and membership.may_live(entry.value.node_id, now)
        and not (entry.value.warrant and notary.verify_warrant(entry.value))
        for entry in segment.entries
    )
