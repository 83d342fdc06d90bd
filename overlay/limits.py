"""Every bound of the project, with the relations between them asserted.

Units come last in the names: `_size` is in bytes, `_count` a number of things, `_s` seconds.
"""

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
FAST_PATH_ENTRIES_MAX: Final = 16_384  # in each map of a sandbox: four addresses per endpoint

# --- State file ------------------------------------------------------------------------
# A changed state file is copied again after this time: what a damaged file loses is no older. A
# large file is copied less often, so that copies write no more than this on average.
STATE_COPY_INTERVAL_FIRST_S: Final = 10.0
STATE_COPY_INTERVAL_MAX_S: Final = 600.0
STATE_COPY_RATE_MAX: Final = 100_000  # bytes per second

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

# --- Probes of the data path ------------------------------------------------------------
PATH_PROBE_INTERVAL_S: Final = 5.0  # of one peer, all being well; more where a round costs more
PATH_PAIR_BIT_PER_S: Final = 890.0  # of each pair of hosts; keys of sessions take another 105
PATH_SIZE_BIT_PER_S: Final = 40.0  # of it at least for large probes that nobody asked for
PATH_RETRY_S: Final = 0.6  # a probe without a report by then is missed
PATH_REPEAT_S: Final = 0.2  # from one probe to the next while they are missed
PATH_MISSES_LOST: Final = 9  # in a row: the path is lost; by chance 1 in 10^8 times at 10 % loss
PATH_MISSES_REPORTED_MAX: Final = 5  # on this scale a report says how many were missed
PATH_SIZE_MISSES: Final = 3  # in a row, while small probes arrive: the size does not pass
PATH_PEERS_PER_CYCLE: Final = 64  # more peers are probed in turn
PATH_ATTACH_PEERS_MAX: Final = 16  # an attach waits for the answers of so many peers at most
PATH_SIZE_INTERVAL_S: Final = 300.0  # a path's size is checked, also for more than before
PATH_TRAFFIC_PER_CHECK: Final = 100  # full packets sent to a peer: a check of its size costs 1 %
PATH_SIZE_STEP: Final = 4  # bytes; the search for a path's size ends there
PATH_INTRODUCTION_S: Final = 0.05  # from the first report, with the key, to the first frame
PATH_REPORT_DELAY_S: Final = 0.002  # one report covers the frames of one round
PATH_PEERS_SETTLE_S: Final = 0.05  # from a changed record to the new set of peers
PATH_ATTACH_WAIT_S: Final = 0.5  # how long an attach waits for the answers of the peers' paths
PATH_LOOK_WAIT_S: Final = 2.5  # how long `status` waits for an outcome: three misses and a little
PATH_SOCKET_BUFFER_SIZE: Final = 256 * 1024  # of the receiver in each sandbox
PATH_KEY_SIZE: Final = 16
PATH_ECHO_SIZE: Final = 4  # of the key, in a report: which agent's frames it is about

# --- Netcheck ---------------------------------------------------------------------------
NETCHECK_PEERS_MAX: Final = 64  # members that one check asks and probes
NETCHECK_WAIT_S: Final = 3.3  # until nine probes in a row are missed, and a little more
NETCHECK_PROMPT_S: Final = 1.0  # between rounds of probes that one member's questions cause
NETCHECK_PROMPTED_MAX: Final = 1024  # members whose last questions are remembered for that
NETCHECK_REWRITTEN_S: Final = 600.0  # how long a changed filter that was rewritten is told of
CONDITIONS_CHECK_S: Final = 2.0  # how often what is wrong here is compared with what members know
CONDITIONS_REPEATED_S: Final = 60.0  # to 64 members, as long as it lasts: 14 bit/s of a pair
CONDITIONS_MEMBERS_MAX: Final = 1024  # whose conditions are remembered
REPAIRS_SHOWN_MAX: Final = 5  # kinds of repairs of the last minutes that `status` shows
CHECKSUM_ERRORS_INTERVAL_S: Final = 5.0  # between readings of containers' counters, at least
CHECKSUM_ERRORS_RECENT_S: Final = 60.0  # readings that are compared
CHECKSUM_ERRORS_MIN: Final = 3  # fewer within that time may be noise on the wire

# --- Traces: the other host's half is asked of its agent ----------------------------------
TRACE_TEXT_LENGTH_MAX: Final = 200  # characters of a finding, and of what to do about it
TRACE_PART_SIZE_MAX: Final = 1000  # bytes of findings in one message
assert TRACE_PART_SIZE_MAX + 100 <= PAYLOAD_SIZE_MAX
assert 2 * TRACE_TEXT_LENGTH_MAX + 100 <= TRACE_PART_SIZE_MAX
TRACE_PARTS_MAX: Final = 8
TRACE_FINDINGS_MAX: Final = 32
TRACE_ANSWERS_PER_S: Final = 2.0  # of one node to all others: each reads a sandbox, up to 0.1 s
TRACE_ANSWERS_BURST: Final = 16.0
TRACE_ANSWERS_WAITING_MAX: Final = 8  # and marks that are watched for at once
TRACE_WAIT_S: Final = 3.0  # for the other host's half; the command line waits for 5 s
TRACE_RETRY_S: Final = 0.8
TRACE_PENDING_MAX: Final = 16  # own traces that wait for another host
CONTAINER_TABLE_SIZE_MAX: Final = 1024 * 1024  # bytes read of a container's table of sockets

# --- Captures: this host's containers, and the far ends of other members' -------------------
CAPTURE_SECONDS_DEFAULT: Final = 600.0  # a forgotten capture ends
CAPTURE_SECONDS_MAX: Final = 7 * 86_400.0
CAPTURE_FRAMES_DEFAULT: Final = 1_000_000
CAPTURE_FILE_SIZE_DEFAULT: Final = 64 * 2**20
CAPTURE_FILE_SIZE_MAX: Final = 2**40
CAPTURE_SNAP_MAX: Final = 65_535 + 14  # bytes of a frame: a segment before its division
CAPTURE_BUFFER_SIZE: Final = 8 * 2**20  # of the kernel, for a local container
CAPTURE_INTERFACES_MAX: Final = 16  # of one container
CAPTURE_BATCH_COUNT: Final = 32  # frames read at once; these, or sightings, in one message
CAPTURE_FILTER_COUNT_MAX: Final = 4096  # instructions: BPF_MAXINSNS, linux/bpf_common.h
CAPTURE_HELD_SIZE_MAX: Final = 32 * 2**20  # bytes of frames that wait to be merged by time
CAPTURE_HOLD_S: Final = 0.5  # for earlier ones of the other host
CAPTURE_ENDPOINTS_MAX: Final = 4096  # whose hosts and VTEPs comments name
CAPTURE_PEER_SNAP_MAX: Final = 960  # a frame fits a message
CAPTURE_PART_SIZE_MAX: Final = 1000  # bytes of frames in one message
assert CAPTURE_PEER_SNAP_MAX + 32 <= CAPTURE_PART_SIZE_MAX
assert CAPTURE_PART_SIZE_MAX + 100 <= PAYLOAD_SIZE_MAX
CAPTURE_PART_DELAY_S: Final = 0.05  # for further frames of the same message
CAPTURE_PEER_FILTER_MAX: Final = 110  # instructions of 8 bytes, in one message
assert CAPTURE_PEER_FILTER_MAX * 8 + 100 <= PAYLOAD_SIZE_MAX
CAPTURE_PEER_BUFFER_SIZE: Final = 256 * 1024
CAPTURES_FOR_PEERS_MAX: Final = 4  # at once; and as many of this host's users, of far ends
CAPTURE_STARTS_PER_S: Final = 0.5  # each is an event
CAPTURE_STARTS_BURST: Final = 8.0
CAPTURE_MESSAGES_PER_S: Final = 200.0  # of all captures: 1.6 Mbit/s, and 2 % of a processor
CAPTURE_PEER_LASTS_S: Final = 5.0  # without another request
CAPTURE_PEER_SECONDS_MAX: Final = 3600.0
CAPTURE_REPEAT_S: Final = 1.0  # between requests
CAPTURE_FIRST_REPEAT_S: Final = 0.2  # until the first answer, also about sightings
CAPTURE_ANSWER_S: Final = 3.0  # without an answer the other host counts as silent
assert CAPTURE_ANSWER_S < CAPTURE_PEER_LASTS_S
CAPTURE_QUEUE_MAX: Final = 1024  # answers that wait for the reader
SIGHTING_WATCH_S: Final = 6.0  # a trace waits for 2 s
SIGHTING_WAIT_S: Final = 1.5  # for the other host's answer

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

# --- Socket ----------------------------------------------------------------------------
# Datagrams read per readiness event; more would starve timers (2 us each, so under 1 ms).
RECEIVE_BATCH_COUNT: Final = 64
RECEIVE_BATCH_S: Final = 0.005  # of the event loop, per batch
SOCKET_BUFFER_SIZE: Final = 4 * 1024 * 1024

# --- Sessions: ephemeral keys are renewed, and erased afterwards ------------------------
SESSION_RENEWED_S: Final = 600.0  # by the side that sent the hello
SESSION_RENEWAL_TURN_S: Final = 30.0  # later by the other side, if that has not happened
SESSION_DATAGRAMS_MAX: Final = 2**20  # sent with one session, then it is renewed
SESSION_SENDS_S: Final = 660.0  # an unused session seals nothing after that
SESSION_KEPT_S: Final = 720.0  # and is erased after that
assert SESSION_RENEWED_S + SESSION_RENEWAL_TURN_S < SESSION_SENDS_S < SESSION_KEPT_S
SESSION_PREVIOUS_S: Final = 5.0  # a replaced session still opens datagrams in transit
SESSION_SWEEP_S: Final = 5.0  # how often sessions that are over are erased
KEY_SWITCH_S: Final = 2.0  # after a cluster key is replaced, its sessions still seal
assert KEY_SWITCH_S < KEY_REST_S  # peers drop the old key, and its sessions, after that
KEY_DOUBT_S: Final = 8.0  # a peer that lacks the key in use is asked again, before it may drop ours
assert KEY_DOUBT_S < KEY_REST_S
SESSIONS_FORMER_MAX: Final = 16  # of one peer: replaced, and still open for what is under way
SESSIONS_UNPROVEN_MAX: Final = 8  # of one peer: hellos answered, nothing heard under them yet
HANDSHAKES_PENDING_MAX: Final = 4  # hellos sent to one peer whose responses still count
HANDSHAKE_KEPT_S: Final = 10.0
HANDSHAKE_FAILURES_MAX: Final = 8  # forged responses
HELLO_REPEAT_S: Final = 0.25  # a hello for which payloads wait; then 0.5, 0.75, 1 s
HELLO_REPEATS_MAX: Final = 8
HELLOS_REMEMBERED_MAX: Final = 64  # of one peer: ephemeral keys that are not answered twice
PROCESSES_REMEMBERED_MAX: Final = 64  # of one peer: those that another one has replaced
DUPLICATE_NOTICE_INTERVAL_S: Final = 1.0  # between notices to the hosts of one identity
NEWCOMERS_MAX: Final = 256  # unknown certified nodes with an unproven session
NEWCOMER_KEPT_S: Final = 10.0
PROMPTED_HELLOS_PER_S: Final = 100.0  # hellos because of datagrams that no session opens
PROMPTED_HELLOS_BURST: Final = 1000.0
PROMPTED_HELLO_INTERVAL_S: Final = 5.0  # to a peer with a session, which may be a forger's target

# --- Handshakes: each costs two key agreements (0.3 ms) before its sender has proven anything --
HANDSHAKES_PER_SOURCE_PER_S: Final = 20.0  # of an address that proved itself by a cookie
HANDSHAKES_PER_SOURCE_BURST: Final = 100.0
HANDSHAKES_UNPROVEN_PER_S: Final = 200.0  # without that, of all addresses together
HANDSHAKES_UNPROVEN_BURST: Final = 400.0
COOKIES_PER_S: Final = 2000.0  # sent
COOKIES_BURST: Final = 2000.0
COOKIE_SECRET_S: Final = 120.0
COOKIES_KEPT_MAX: Final = 16_384  # by a sender, one for each address
GATE_SOURCES_MAX: Final = 16_384
assert GATE_SOURCES_MAX > MEMBER_COUNT_MAX  # all members at once, as after a power cut

# --- API -------------------------------------------------------------------------------
API_NETWORKS_MAX: Final = 1024
API_BODY_SIZE_MAX: Final = 64 * 1024
API_TEXT_LENGTH_MAX: Final = 4096  # characters of one text in a request
API_CLIENTS_MAX: Final = 256  # requests at once; as many idle connections
API_ROOT_RESERVE: Final = 64  # of them root's alone
API_REQUESTS_PER_USER_MAX: Final = 64  # of one user other than root
assert API_REQUESTS_PER_USER_MAX < API_CLIENTS_MAX - API_ROOT_RESERVE
API_FOLLOWERS_MAX: Final = 32  # event streams of all users other than root; no requests
API_REQUEST_TIMEOUT_S: Final = 60.0
FOLLOWER_CHECK_INTERVAL_S: Final = 1.0  # from one check that a reader has not gone to the next
SOCKET_PATH_SIZE_MAX: Final = 107  # unix(7): sun_path is 108 bytes with its final zero
API_SILENCE_MAX_S: Final = 10.0  # a connection without a request by then is closed
ATTACH_CONFIRM_TIMEOUT_S: Final = 1.0
JOIN_TIMEOUT_S: Final = 20.0
JOIN_SYNC_TIMEOUT_S: Final = 5.0  # a member may be down that is not known to be
TRAFFIC_AGE_MAX_S: Final = 0.5  # of interface counters, so that many readers cost what one does
METRICS_CONNECTIONS_MAX: Final = 16  # at once, to `metrics_listen`
METRICS_REQUEST_SIZE_MAX: Final = 8192
METRICS_TIMEOUT_S: Final = 10.0  # of one connection, from its start to the end of the answer
METRICS_AGE_MAX_S: Final = 1.0  # of an answer, so that a flood of requests costs one a second
WEB_STREAMS_MAX: Final = 16  # pages of `overlayd web` that are kept up to date at once
WEB_STREAM_QUEUE_MAX: Final = 64  # updates that a page has not read; then it is disconnected
WEB_REQUESTS_MAX: Final = 64  # at once, with the streams; as many idle connections
WEB_REQUEST_TIMEOUT_S: Final = 20.0  # of everything but a stream
WEB_BODY_SIZE_MAX: Final = 4096
WEB_SILENCE_MAX_S: Final = 15.0  # a connection without a request by then is closed
WEB_POLL_INTERVAL_S: Final = 2.0  # how often the agent is asked while a page is open
WEB_POLL_SHARE_MAX: Final = 0.1  # and at most this part of the time, on large clusters
WEB_EVENTS_MAX: Final = 200  # shown, and kept for a page that is opened later
WEB_SESSIONS_MAX: Final = 64  # browsers that are signed in; then the oldest has to do so again
WEB_SESSION_S: Final = 12 * 3600.0
WEB_TOKEN_LENGTH_MIN: Final = 16
WEB_TOKEN_SIZE_MAX: Final = 512
WEB_SIGN_IN_PAUSE_S: Final = 0.5  # after a wrong token; attempts are answered one by one
PEER_CHECK_TIMEOUT_S: Final = 5.0  # for a peer to prove that it is of a member's own cluster

# --- The host ------------------------------------------------------------------------------
DISK_FREE_MIN: Final = 64 * 2**20  # bytes: `doctor` warns before a full disk refuses attaches
DISK_FILES_FREE_MIN: Final = 1000
REPORT_FILE_SIZE_MAX: Final = 512 * 1024  # characters of one file of a report
REPORT_SIZE_MAX: Final = 16 * 2**20  # bytes of all of them, before compression
REPORT_COMMAND_TIMEOUT_S: Final = 5.0
REPORT_SANDBOXES_MAX: Final = 32
REPORT_LOG_LINES_MAX: Final = 5000  # of the journal
NEIGHBORS_FULL: Final = 0.8  # of gc_thresh3: reported before the kernel refuses entries
MACS_REMEMBERED_MAX: Final = 4096  # per network: of unused addresses
ANNOUNCEMENTS_PER_PASS_MAX: Final = 64  # of addresses with a new MAC, to local containers

# --- Container runtimes ------------------------------------------------------------------
DOCKER_NAME_WAIT_S: Final = 5.0  # how long a call waits for the name of a network just created
DOCKER_CALL_TIMEOUT_S: Final = 25.0  # of a call of Docker's, which gives up after 30 s
DOCKER_CALLS_MAX: Final = 64  # at once
DOCKER_POOLS_UNBOUND_MAX: Final = 16  # requested, and no network created with them yet
DOCKER_BODY_SIZE_MAX: Final = 512 * 1024
DOCKER_SWEEP_S: Final = 60.0  # from one comparison with what Docker has to the next
# For the answer about a container just created: if Docker starts it already, it answers after that.
DOCKER_CREATED_WAIT_S: Final = 0.1
DOCKER_PLUGIN_TIMEOUT_S: Final = 60.0  # of each request for the managed plugin
DOCKER_EARLY_NAMES_MAX: Final = 64  # of networks, told before Docker has created them here
DOCKER_NEW_CONTAINERS_MAX: Final = 1024  # created and not started yet, remembered
PLUGIN_FORMER_MAX: Final = 1024  # detached containers whose addresses are remembered
RUNTIME_RETRY_FIRST_S: Final = 0.5  # after a lost event stream; doubled up to
RUNTIME_RETRY_MAX_S: Final = 30.0
RUNTIME_POLL_S: Final = 1.0  # between two checks of a runtime without events, if there is anything
RUNTIME_POLL_SHARE: Final = 20  # times what a check took, at least
START_POLL_S: Final = 0.05  # while somebody waits for the start of a container
START_POLL_SHARE: Final = 5
START_WAIT_MAX_S: Final = 10.0  # of one request; the command line repeats it

# --- Names ------------------------------------------------------------------------------
DNS_QUESTIONS_MAX: Final = 512  # being answered at once, per network
DNS_FORWARDS_MAX: Final = 256  # of them waiting for the host's resolvers
DNS_FORWARDS_PER_CLIENT_MAX: Final = 32  # of them one container's
DNS_STREAMS_MAX: Final = 256  # TCP connections at once, per network
DNS_STREAMS_PER_CLIENT_MAX: Final = 16  # of them one container's
DNS_STREAM_QUESTIONS_MAX: Final = 8  # of one connection being answered at once
DNS_STREAM_IDLE_S: Final = 6.0  # until a connection without a question is closed
DNS_STREAM_LIFETIME_S: Final = 30.0  # of a connection, however many questions it has
DNS_DOCKER_FIRST_S: Final = 0.25  # for a name of Docker's own, before overlayd answers it
DNS_DOCKER_WAIT_S: Final = 5.0  # for Docker's resolver, which waits 4 s for each of its own
DNS_RETRY_FIRST_S: Final = 1.0  # after an address could not be served; doubled up to
DNS_RETRY_MAX_S: Final = 30.0
# Resolvers in whose place the DNS server of a network answers: the host's, and containers' own.
DNS_INTERCEPTED_MAX: Final = 16

# --- VXLAN -----------------------------------------------------------------------------
PREFIX_LENGTH_MAX: Final = 126  # of a block of addresses: more than one in it
VNI_MAX: Final = 2**24 - 1  # RFC 7348 section 5
VXLAN_OVERHEAD_IPV4: Final = 50  # RFC 7348: Ethernet 14, IPv4 20, UDP 8, VXLAN 8
VXLAN_OVERHEAD_IPV6: Final = 70
# WireGuard (wireguard.com/protocol): header 16, tag 16, UDP 8, and the IP header outside.
WIREGUARD_OVERHEAD_IPV4: Final = 60
WIREGUARD_OVERHEAD_IPV6: Final = 80
WIREGUARD_EPOCH_MAX: Final = 2**32  # of a node's keys, counted from 1
WIREGUARD_KEYS_WAIT_S: Final = 3.0  # for the keys of members that have just joined
WIREGUARD_KEYS_POLL_S: Final = 0.2
WIREGUARD_START_S: Final = 3.0  # for wireguard-go to have made its device and its socket
WIREGUARD_GREETING_S: Final = 0.5  # for a new device to have sent something to each peer
WIREGUARD_GREETING_PAUSE_S: Final = 0.005
WIREGUARD_ROTATION_POLL_S: Final = 0.25  # from look to look at the handshakes of new keys
WIREGUARD_ROTATION_PAUSE_S: Final = 5.0  # no member can make others replace keys more often
WIREGUARD_ROTATION_WAIT_S: Final = 20.0  # the command waits so long for all members
WIREGUARD_RETIRED_S: Final = 2.0  # a former key is kept for packets that are under way
IPV6_MTU_MIN: Final = 1280  # RFC 8200 section 5
UNDERLAY_MTU_MIN: Final = IPV6_MTU_MIN
IP_PACKET_SIZE_MAX: Final = 65_535  # RFC 791, and RFC 8200 without jumbograms
VXLAN_PORT_DEFAULT: Final = 4789  # RFC 7348 section 8, IANA
GOSSIP_PORT_DEFAULT: Final = 7948  # 7946 is Docker swarm's and Serf's on the same hosts
# Docker numbers its VNIs from 4096, and people choose small ones. Random VNIs are from the upper
# half, so that they do not collide on a shared UDP socket.
VNI_DRAWN_MIN: Final = 2**23

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
CONTROLLER_RETRY_FIRST_S: Final = 1.0  # after a reconcile pass that failed; doubled up to
CONTROLLER_RETRY_MAX_S: Final = 5.0
assert CONTROLLER_RETRY_FIRST_S <= CONTROLLER_RETRY_MAX_S

CONTAINER_CHECK_INTERVAL_S: Final = 15.0  # of containers' interfaces, at most
CONTAINER_CHECK_INTERVAL_MIN_S: Final = 2.0  # with few containers
CONTAINER_CHECK_EACH_S: Final = 0.03  # of the interval, for each container: a check takes 0.4 ms

# --- Macvlan and ipvlan interfaces --------------------------------------------------------
MACVLAN_CHECK_INTERVAL_S: Final = 2.0  # between checks of interfaces, 0.2 ms for each
MACVLAN_RETRY_S: Final = 10.0  # before an interface that could not be recreated is retried

# --- Rates -----------------------------------------------------------------------------
RATE_MIN_BITS: Final = 64_000  # per second; below it a packet would wait for a quarter of a second
RATE_MAX_BITS: Final = 32_000_000_000  # per second; the kernel counts bytes per second in 32 bits
GATEWAY_PRIORITY_MAX: Final = 1000

# --- Interface names -------------------------------------------------------------------
INTERFACE_NAME_LENGTH_MAX: Final = 15  # IFNAMSIZ less the final zero
RIVALS_MAX: Final = 64  # hosts with another one's identity, remembered
