"""Bounds on what a host takes from a BGP EVPN fabric, and on what it configures there."""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Final

EVPN_NEIGHBORS_MAX: Final = 8  # route reflectors; two are usual
EVPN_PREFIXES_MAX: Final = 32  # ranges of outside VTEPs
EVPN_TTL_HOPS_MAX: Final = 254  # to a neighbor, as FRR takes it
EVPN_PASSWORD_LENGTH_MAX: Final = 80  # of TCP-MD5, as FRR takes it
EVPN_ROWS_PER_NETWORK_MAX: Final = 100_000  # MACs and addresses of outside VTEPs
EVPN_ROWS_MAX: Final = 250_000  # on all networks of a host
EVPN_VTEPS_PER_NETWORK_MAX: Final = 1_000  # each gets a copy of every broadcast
assert EVPN_ROWS_PER_NETWORK_MAX < EVPN_ROWS_MAX
EVPN_MEMORY_MAX: Final = 4 * 2**30  # bytes of address space of each of FRR's processes
EVPN_SETTLE_S: Final = 2.0  # without a change after a session is up: the table is complete
EVPN_SETTLE_MAX_S: Final = 60.0  # a table that never rests counts as complete then
EVPN_HOLD_S: Final = 3600.0  # a start without a session keeps rows so long, unless told again
EVPN_BURST_S: Final = 0.05  # from a notification to the pass that covers those that follow
EVPN_POLL_S: Final = 1.0  # from a check of the sessions to the next
EVPN_CONFLICT_AFTER_S: Final = 5.0  # a container that moves has two places for a moment
EVPN_SHOWN_MAX: Final = 10_000  # outside addresses in one answer of the API
EVPN_SESSION_GRACE_S: Final = 10.0  # from a start or a loss until a missing session is reported
EVPN_ENABLE_WAIT_S: Final = 15.0  # how long `evpn enable` waits for a session
EVPN_ADDRESS_WAIT_S: Final = 3.0  # an attach waits so long for an address to be withdrawn outside
