"""Bounds of multicast: which groups a host wants, and when it says so."""

from __future__ import annotations

from overlay.limits.wire import DECLARED_BODY_SIZE_MAX

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Final

MULTICAST_GROUP_BYTES_MAX: Final = 600
"""Of the addresses of a host's groups on one network: 150 of IPv4. With more it wants all."""
assert MULTICAST_GROUP_BYTES_MAX + 5 <= DECLARED_BODY_SIZE_MAX
MULTICAST_MACS_MAX: Final = 1024  # of one network that are pruned; others are flooded
MULTICAST_TARGETS_MAX: Final = 64  # hosts; a group that more want is flooded

# RFC 3376 section 8 has 125 s and 260 s; overlayd's queries reach this host's containers alone.
MULTICAST_QUERY_INTERVAL_S: Final = 60.0
MULTICAST_RESPONSE_S: Final = 3.0  # in which containers answer a general query
MULTICAST_MEMBERSHIP_S: Final = 2 * MULTICAST_QUERY_INTERVAL_S + MULTICAST_RESPONSE_S + 5
MULTICAST_LEAVE_S: Final = 3.0  # after a leave, in which another member may answer
MULTICAST_ROUTER_S: Final = 600.0  # since the last sign of a router, in which it gets all groups
MULTICAST_LEARNING_S: Final = 2 * MULTICAST_RESPONSE_S  # after a start; the host wants all
# A host whose groups change more often than this says that it wants all, and then rests.
MULTICAST_CHANGES_MAX: Final = 60
MULTICAST_CHANGES_PERIOD_S: Final = 60.0
MULTICAST_UNREST_S: Final = 300.0
MULTICAST_GROUPS_MAX: Final = 512  # of a network that a host remembers; with more it wants all
MULTICAST_ASKED_MAX: Final = 64  # groups that somebody left, and that are asked for at a time
MULTICAST_FRAMES_MAX: Final = 256  # of a network that are read at once
MULTICAST_REST_S: Final = 0.05  # between two reads of one network, and two writes of records
MULTICAST_REST: Final = 20  # times as long as a read took, so that a flood costs little
MULTICAST_REST_MAX_S: Final = 2.0
assert MULTICAST_UNREST_S > 2 * MULTICAST_QUERY_INTERVAL_S  # all members have reported by its end
