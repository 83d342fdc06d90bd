"""Bounds of datagrams, of what they carry, and of records."""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Final


# --- Datagrams -------------------------------------------------------------------------
# RFC 8200 section 5: every IPv6 link carries 1280 bytes; less 40 (IPv6) and 8 (UDP) leaves
# 1232. 1200 keeps a margin for one tunnel header, so gossip is never fragmented.
DATAGRAM_SIZE_MAX: Final = 1200
DATAGRAM_SIZE_MIN: Final = 48  # no valid one is shorter
CONTACT_HEADER_SIZE: Final = 32  # version 1, kind 1, generation 2, sender 16, counter 8, random 4
SESSION_HEADER_SIZE: Final = 16  # version 1, kind 1, zero 2, receiver's index 4, counter 8
FRAME_HEAD_SIZE: Final = 3  # type 1, length 2
TAG_SIZE: Final = 16  # AES-256-GCM
PAYLOAD_SIZE_MAX: Final = 1152
assert SESSION_HEADER_SIZE + FRAME_HEAD_SIZE + PAYLOAD_SIZE_MAX + TAG_SIZE <= DATAGRAM_SIZE_MAX
# One segment must fit a payload with the Delta message's own framing around it.
SEGMENT_SIZE_MAX: Final = 1000
CARD_SIZE_MAX: Final = 512
assert SEGMENT_SIZE_MAX + 100 <= PAYLOAD_SIZE_MAX
assert 2 * CARD_SIZE_MAX <= PAYLOAD_SIZE_MAX

# --- Decoding --------------------------------------------------------------------------
ARRAY_LENGTH_MAX: Final = 256
TEXT_SIZE_MAX: Final = 255

# --- Names and records -----------------------------------------------------------------
NAME_LENGTH_MAX: Final = 63  # RFC 1035 section 2.3.4: a DNS label
ALIAS_COUNT_MAX: Final = 8
DNS_SEARCH_MAX: Final = 6  # all resolvers accept it: glibc before 2.26, and musl by size
DNS_SEARCH_SIZE_MAX: Final = 255  # in bytes: musl ignores a longer list
DNS_OPTIONS_MAX: Final = 8
DNS_SERVERS_MAX: Final = 3  # resolv.conf(5): MAXNS
ALLOWED_ADDRESSES_MAX: Final = 8  # of one endpoint, beside its own
ALLOWED_MACS_MAX: Final = 8
CUSTOM_RECORDS_MAX: Final = 256  # of one node on one network
CUSTOM_RECORD_IPS_MAX: Final = 16
LABEL_COUNT_MAX: Final = 16
LABEL_SIZE_MAX: Final = 128  # name and value together, as UTF-8
assert LABEL_SIZE_MAX <= TEXT_SIZE_MAX
SUBNET_COUNT_MAX: Final = 8
AUXILIARY_COUNT_MAX: Final = 16
SHOWN_CONFLICTS_MAX: Final = 16
CONFLICT_CHECK_INTERVAL_S: Final = 1.0  # one check for many changes
CARD_CHECK_INTERVAL_S: Final = 5.0
UNANSWERED_PROBES_REPORTED: Final = 4  # in a row, of a member that counts as alive by relays
SHOWN_RANGES_MAX: Final = 16
RECORD_SIZE_MAX: Final = SEGMENT_SIZE_MAX - 200  # the rest: origin, versions, signature
# Of one node. Verbs keep them, and of a member that writes more, the others ignore the surplus.
NETWORKS_PER_NODE_MAX: Final = 1024  # created by it
ENDPOINTS_PER_NODE_MAX: Final = 4096
FORMER_IDENTITY_RETRY_S: Final = 5.0  # until members know that it is dead
REMOVED_CONTAINER_KEPT_S: Final = 600.0  # to attach one that is made again under its name
# One for each network that it created, attached to, or holds in a forgotten node's place.
PARTICIPATIONS_PER_NODE_MAX: Final = 8192
assert PARTICIPATIONS_PER_NODE_MAX > NETWORKS_PER_NODE_MAX + ENDPOINTS_PER_NODE_MAX
REMOVED_NETWORKS_PER_NODE_MAX: Final = 8192  # of other creators, which have not deleted them yet
FORGOTTEN_PER_NODE_MAX: Final = 1024  # every member writes a statement about each
REVOCATIONS_PER_NODE_MAX: Final = 4096  # of other holders' tokens
STATEMENTS_PER_NODE_MAX: Final = 32_768  # about all nodes that were ever forgotten
ENDPOINTS_PER_LOG_MAX: Final = ENDPOINTS_PER_NODE_MAX + 64  # host endpoints, and attaches under way
DECLARED_KIND_MAX: Final = 255
DECLARED_VERSION_MAX: Final = 2**48  # of one object; a change a second takes 9 million years
# With name (63), kind, version, key and framing (40) it must fit a record.
DECLARED_BODY_SIZE_MAX: Final = 690
assert DECLARED_BODY_SIZE_MAX + NAME_LENGTH_MAX + 40 <= RECORD_SIZE_MAX
DECLARED_PER_NODE_MAX: Final = 1024  # objects whose newest version one node wrote
DECLARED_REMOVAL_REST_S: Final = 60.0  # all members answer for so long, then a removal is dropped
FAST_PATH_ENTRIES_MAX: Final = 16_384  # in each map of a sandbox: four addresses per endpoint
REMOTE_ENTRIES_MAX: Final = 262_144  # remote containers of a sandbox on the native path
NATIVE_PATH_ENTRIES_MAX: Final = 16_384  # in each map of a host: members by interface, and VNIs
FIREWALL_RULES_MAX: Final = 20_000  # of others, compared with VXLAN packets: about 0.2 s
FIREWALL_SET_ELEMENTS_MAX: Final = 1_000  # of a larger set it is not known what is in it

# --- Socket ----------------------------------------------------------------------------
# Datagrams read per readiness event; more would starve timers (2 us each, so under 1 ms).
RECEIVE_BATCH_COUNT: Final = 64
RECEIVE_BATCH_S: Final = 0.005  # of the event loop, per batch
SOCKET_BUFFER_SIZE: Final = 4 * 1024 * 1024
