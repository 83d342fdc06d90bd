"""Bounds of the state file, membership, admission, keys and addresses."""

from __future__ import annotations

from overlay.limits.wire import (
    ARRAY_LENGTH_MAX,
    ENDPOINTS_PER_NODE_MAX,
    NETWORKS_PER_NODE_MAX,
    PARTICIPATIONS_PER_NODE_MAX,
    RECORD_SIZE_MAX,
)

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Final


# --- State file ------------------------------------------------------------------------
# A changed state file is copied again after this time: what a damaged file loses is no older. A
# large file is copied less often, so that copies write no more than this on average.
STATE_COPY_INTERVAL_FIRST_S: Final = 10.0
STATE_COPY_INTERVAL_MAX_S: Final = 600.0
STATE_COPY_RATE_MAX: Final = 100_000  # bytes per second
STATE_PLACE_INTERVAL_S: Final = 5.0  # between two looks whether the path leads to the open file

# --- Cluster ---------------------------------------------------------------------------
MEMBER_COUNT_MAX: Final = 10_000
SEED_COUNT_MAX: Final = 64
SEED_RETRY_FIRST_S: Final = 1.0  # between two contacts of members that are not found; doubled
SEED_RETRY_MAX_S: Final = 60.0
LOST_MEMBERS_RESOLVED_MAX: Final = 8  # names in one turn: each may take seconds

# --- Admission -------------------------------------------------------------------------
TOKEN_ID_SIZE: Final = 8
TOKEN_COUNT_MAX: Final = 256  # kept by one holder, expired ones included
TOKEN_LIFE_MAX_S: Final = 10 * 366 * 86_400
ADMISSIONS_PER_MINUTE_MAX: Final = 120  # by one token on one holder; others wait for their turn
HOLDERS_REPORTED_MAX: Final = 8  # that a joiner is directed to
CERTIFICATE_VALID_S: Final = 90 * 86_400
CERTIFICATE_RENEWED_S: Final = 30 * 86_400  # before its expiry
CERTIFICATE_EARLY_S: Final = 86_400  # the clocks of two hosts may differ by this much
CERTIFICATE_CHECK_INTERVAL_S: Final = 3600.0
PROMOTE_TIMEOUT_S: Final = 10.0
AUTHORITY_HOLDERS_DEFAULT: Final = 3
AUTHORITY_HOLDERS_MAX: Final = HOLDERS_REPORTED_MAX  # kept by themselves; `promote` makes more
HOLDER_LOST_S: Final = 600.0  # without an answer; a reboot takes less
LAST_HOLDER_LOST_S: Final = 60.0  # where no other holder has answered
HOLDER_TURN_S: Final = 5.0  # delay of each further holder before it makes a new one
HOLDER_CHECK_INTERVAL_S: Final = 10.0
HANDOVER_INTERVAL_S: Final = 1.0  # between two messages with the key to one member
HANDOVER_PATIENCE_S: Final = 30.0  # then another member is chosen
PASSPHRASE_LENGTH_MIN: Final = 8  # characters; it alone protects an exported authority
PASSPHRASE_LENGTH_MAX: Final = 1024
SINGLE_HOLDER_SHOWN_S: Final = 30.0  # a new member becomes a holder within seconds

# --- Cluster keys ----------------------------------------------------------------------
KEY_GENERATION_MAX: Final = 2**32 - 1
KEY_LEAP_MAX: Final = 1024  # generations that a holder may have missed
KEYS_HELD_MAX: Final = 8  # by one member: the one in use, one before, and those of a partition
KEYS_COUNTED_MAX: Final = 16  # generations whose datagrams are counted
KEY_SENDERS_MAX: Final = 3  # of the holders of a new key, how many distribute it
KEY_REST_S: Final = 10.0  # an old key still opens datagrams in transit, joins included
KEY_CHECK_INTERVAL_S: Final = 1.0  # during a rotation: lost messages are repeated
KEY_IDLE_CHECK_INTERVAL_S: Final = 30.0
KEY_TURN_S: Final = 60.0  # delay of each further holder before it creates the next key
KEY_ROTATE_TIMEOUT_S: Final = 20.0  # how long the command waits
KEY_STUCK_S: Final = 300.0  # a longer rotation is reported

# --- Membership ------------------------------------------------------------------------
INCARNATION_MAX: Final = 2**62  # starts at epoch << 20; leaves room to refute any below it
# How far an update or an Ack may be beyond the incarnation on a node's last known card: 1024
# starts, one epoch each (core.replication.card_intake shifts it by 20 bits).
INCARNATION_LEAP_MAX: Final = 1024 << 20
RELAYED_PROBES_MAX: Final = 1024  # indirect probes for others at once
RUMOURS_OF_STRANGERS_MAX: Final = 1024  # kept until the node's card is known
MEMBERSHIP_EVENTS_MAX: Final = 65_536

# --- Memory held for others ------------------------------------------------------------
SEGMENTS_PER_LOG_MAX: Final = 8192
EARLY_SEGMENTS_PER_LOG_MAX: Final = 64  # buffered beyond a gap
ENTRIES_PER_SEGMENT_MAX: Final = 64
assert ENTRIES_PER_SEGMENT_MAX <= ARRAY_LENGTH_MAX
OUTBOX_MESSAGES_PER_PEER_MAX: Final = 256
OUTBOX_MESSAGES_MAX: Final = 65_536
EVENT_QUEUE_MAX: Final = 65_536
CONFIRM_WAITS_MAX: Final = 1024
NEWS_MAX: Final = 16_384  # segments waiting to be relayed
HANDSHAKE_PAYLOADS_PER_PEER_MAX: Final = 16
STATUS_CHECK_INTERVAL_S: Final = 5.0  # for changes of the status that nobody records
STATUS_EVENTS_MAX: Final = 32  # of one check
RECENT_EVENTS_MAX: Final = 10_000

ARRIVAL_PATHS_MAX: Final = 4 * MEMBER_COUNT_MAX  # pairs of member and interface, remembered
ARRIVAL_PATH_RENEWAL_S: Final = 60.0  # one that is used is told of again
# How long a member is heard by other interfaces alone until one that it used is forgotten.
ARRIVAL_PATH_KEPT_S: Final = 600.0

# --- Addresses -------------------------------------------------------------------------
GRANT_SIZE_MAX: Final = 2**31  # addresses asked for at once; the wire format carries 32 bits
# Every member of a cluster of this size keeps the records of every network and a part of its space;
# of a larger one, so many members, besides those that use the network.
RESERVE_MEMBERS_MAX: Final = 64
RESERVE_KEEPERS: Final = 8
# Of one node. What it must participate in has room in its log beside these.
RESERVE_NETWORKS_MAX: Final = 2048
assert (
    NETWORKS_PER_NODE_MAX + ENDPOINTS_PER_NODE_MAX + RESERVE_NETWORKS_MAX
    < PARTICIPATIONS_PER_NODE_MAX
)
RESERVE_LOW: Final = 32  # free addresses; with fewer a node asks for more, before it runs out
RESERVE_REQUESTS_MAX: Final = 16  # of one node at once: each costs its owner a write to disk
RESERVE_CHECKS_MAX: Final = 32  # networks in one pass, each about a millisecond with 64 owners
RESERVE_RETRY_S: Final = 1.0  # a request without an answer is repeated
RESERVE_TRIES: Final = 3
RESERVE_REFUSED_S: Final = 10.0  # an owner that refused or kept silent is not asked meanwhile
RESERVE_SETTLE_S: Final = 0.2  # one pass for a burst of records
RESERVE_GRACE_S: Final = 3.0  # a new network's first grants come from its creator unasked
FREE_TOLD_MAX: Final = 2**63  # maximum in a refusal; an IPv6 subnet has more
GRANTS_PER_LOG_MAX: Final = 4096  # beyond it an owner refuses requests
GRANT_GENERATION_MAX: Final = 2**32  # no agent comes near it
GRANTS_COUNTED_MAX: Final = 2 * GRANTS_PER_LOG_MAX  # with those of a departure or a reclaim
# Runs in one ReclaimStatement: IPv6, 3 + 16 + 16 and 4 bytes of framing, 14 * 39 = 546.
KEPT_PER_RECORD_MAX: Final = 14
assert KEPT_PER_RECORD_MAX * 39 + 100 <= RECORD_SIZE_MAX
KEPT_RECORDS_MAX: Final = 1024
QUARANTINE_COUNT_MAX: Final = 65_536
# A host endpoint takes an address; in a smaller subnet only if explicitly requested.
EXPOSED_SUBNET_SIZE_MIN: Final = 32
HOST_FILES_CHECK_INTERVAL_S: Final = 5.0  # the search list of containers ends with the host's
PUBLISH_CHECK_INTERVAL_S: Final = 0.2  # one check for many changes of endpoints
UNPRIVILEGED_PORT_MIN: Final = 1024  # ip(7): lower ones are root's to bind
PUBLISH_TRIES_MAX: Final = 64  # ports of the host that are tried where any of a range will do
PUBLISHED_PORTS_MAX: Final = 512  # rules that the first packet of a connection passes
ADDRESS_QUARANTINE_S: Final = 60.0  # an address rests before reuse: ARP caches expire
BACKGROUND_AGAIN_S: Final = 5.0  # before background work that the host refused is retried
CALLBACK_AGAIN_S: Final = 1.0  # before a timer whose callback raised an exception runs again
DEFECT_SHOWN_S: Final = 3600.0  # how long `status` tells of one
DEFECT_INTERVAL_S: Final = 60.0  # between log entries from one line of the source
DEFECT_PLACES_MAX: Final = 64
DEFECT_TEXT_SIZE: Final = 200  # characters: it may quote what others have sent
CONTROLLER_RETRY_FIRST_S: Final = 1.0  # after a reconcile pass that failed; doubled up to
CONTROLLER_RETRY_MAX_S: Final = 5.0
assert CONTROLLER_RETRY_FIRST_S <= CONTROLLER_RETRY_MAX_S

CONTAINER_CHECK_INTERVAL_S: Final = 15.0  # of all containers' interfaces, at most
CONTAINER_CHECK_INTERVAL_MIN_S: Final = 2.0  # from a look at changed ones to the next
CONTAINER_CHECK_EACH_S: Final = 0.1  # of that, for each of these: a check takes 0.4 ms
CONTAINER_CHANGE_SETTLE_S: Final = 1.0  # a program in it may replace an address in two steps
CONTAINER_CHANGES_BUFFER_SIZE: Final = 256 * 1024  # bytes as the kernel counts: some 300 of them
# At once, in the event loop: more than the buffer holds, in 2 ms.
CONTAINER_CHANGES_READ_MAX: Final = 512
CONTAINER_STRANGERS_HEARD_MAX: Final = 8  # readings that found changes of detached containers
assert CONTAINER_CHANGE_SETTLE_S <= CONTAINER_CHECK_INTERVAL_MIN_S
CONTAINER_CHECKS_AT_ONCE: Final = 8  # in one call of the kernel thread, for which others wait
CONTAINER_CHECKS_S: Final = 0.02  # after which such a call leaves the rest to calls of their own
# Bytes of one kernel table of a container: some 40,000 routes, or 2,000 links. Root there may add
# millions, and decoding this much takes some 0.2 s.
CONTAINER_DUMP_SIZE_MAX: Final = 4 * 1024 * 1024
