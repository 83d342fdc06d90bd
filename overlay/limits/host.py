"""Bounds on one host: the API, container runtimes, names, interfaces and rates."""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Final


# --- configuration ---------------------------------------------------------------------
CONFIGURED_MAX_S: Final = 1e9  # of an interval: 31 years, which every timer takes

# --- API -------------------------------------------------------------------------------
API_NETWORKS_MAX: Final = 1024
APPLY_OBJECTS_MAX: Final = 1024  # in each section of a file
API_BODY_SIZE_MAX: Final = 64 * 1024
API_TEXT_LENGTH_MAX: Final = 4096  # characters of one text in a request
API_CLIENTS_MAX: Final = 256  # requests at once; as many idle connections
API_ROOT_RESERVE: Final = 64  # of them root's alone
API_REQUESTS_PER_USER_MAX: Final = 64  # of one user other than root
assert API_REQUESTS_PER_USER_MAX < API_CLIENTS_MAX - API_ROOT_RESERVE
API_FOLLOWERS_MAX: Final = 32  # event streams of all users other than root; no requests
API_REQUEST_TIMEOUT_S: Final = 60.0
FOLLOWER_CHECK_INTERVAL_S: Final = 1.0  # from one check that a reader has not gone to the next
HTTP_HEADERS_MAX: Final = 100  # in an answer of an agent or a container engine
SOCKET_PATH_SIZE_MAX: Final = 107  # unix(7): sun_path is 108 bytes with its final zero
API_SOCKET_CHECK_S: Final = 5.0  # from one look whether the socket is there to the next
API_SILENCE_MAX_S: Final = 10.0  # a connection without a request by then is closed
ATTACH_CONFIRM_TIMEOUT_S: Final = 1.0
NETWORK_LEAVE_TIMEOUT_S: Final = 5.0  # for hosts that nothing keeps on a network that is removed
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
CHANGES_REMEMBERED_MAX: Final = 4096  # records of a network; a pass after more reads all of them
# The periodic comparison of remote endpoints' rows takes 1 s of a processor for 50,000. Changes by
# others are notified, so it may be rare; it finds those whose notification never came.
ROW_COMPARISON_SHARE_MAX: Final = 0.01  # of one processor
ROW_COMPARISON_PAUSE_MAX_S: Final = 300.0
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
# Between two looks for the namespace of a container that Docker starts: within some of these its
# program runs. Longer the longer it takes, by a share of it; Docker itself gives up earlier.
DOCKER_ARRIVAL_POLL_S: Final = 0.005
DOCKER_ARRIVAL_POLL_SHARE: Final = 0.01
DOCKER_ARRIVAL_MAX_S: Final = 60.0
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
WIREGUARD_LOOK_S: Final = 2.0  # from one look whether wireguard-go answers to the next
WIREGUARD_ANSWER_S: Final = 3.0  # for it to answer an empty request, of which two are asked
WIREGUARD_EXCHANGE_S: Final = 5.0  # for one that answers to read or take 1,000 peers
WIREGUARD_END_S: Final = 1.0  # for a killed one to be gone
WIREGUARD_GREETING_S: Final = 0.5  # for a new device to have sent something to each peer
WIREGUARD_GREETING_PAUSE_S: Final = 0.005
WIREGUARD_ROTATION_POLL_S: Final = 0.25  # from look to look at the handshakes of new keys
WIREGUARD_ROTATION_PAUSE_S: Final = 5.0  # no member can make others replace keys more often
WIREGUARD_ROTATION_WAIT_S: Final = 20.0  # the command waits so long for all members
ENCRYPTION_SWITCH_POLL_S: Final = 0.5  # from try to try of a step
ENCRYPTION_SWITCH_LOOK_S: Final = 0.05
ENCRYPTION_SWITCH_WAIT_S: Final = 30.0  # the command waits so long for all members
ENCRYPTION_SWITCH_STUCK_S: Final = 20.0  # until a switch that waits is shown by `status`
ENCRYPTION_SERIAL_MAX: Final = 10**18  # of a goal that members go by
ENCRYPTION_SWITCH_KEPT_S: Final = 30.0  # for members that hear of its end late
WIREGUARD_RETIRED_S: Final = 2.0  # a former key is kept for packets that are under way
IPV6_MTU_MIN: Final = 1280  # RFC 8200 section 5
UNDERLAY_MTU_MIN: Final = IPV6_MTU_MIN
MTU_MAX: Final = 65_535
NETWORK_MTU_MIN: Final = 576  # of a network without IPv6: what every host accepts (RFC 791)
IP_PACKET_SIZE_MAX: Final = 65_535  # RFC 791, and RFC 8200 without jumbograms
VXLAN_PORT_DEFAULT: Final = 4789  # RFC 7348 section 8, IANA
GOSSIP_PORT_DEFAULT: Final = 7948  # 7946 is Docker swarm's and Serf's on the same hosts
# Docker numbers its VNIs from 4096, and people choose small ones. Random VNIs are from the upper
# half, so that they do not collide on a shared UDP socket.
VNI_DRAWN_MIN: Final = 2**23
SUBNET_DRAWS_MAX: Final = 64  # random IPv6 subnets that are tried: a larger network may have all

# --- Macvlan and ipvlan interfaces --------------------------------------------------------
MACVLAN_CHECK_INTERVAL_S: Final = 2.0  # between checks of interfaces, 0.2 ms for each
MACVLAN_RETRY_S: Final = 10.0  # before an interface that could not be recreated is retried

# --- Rates -----------------------------------------------------------------------------
RATE_MIN_BITS: Final = 64_000  # per second; below it a packet would wait for a quarter of a second
RATE_MAX_BITS: Final = 32_000_000_000  # per second; the kernel counts bytes per second in 32 bits
GATEWAY_PRIORITY_MAX: Final = 1000

# --- What ports may send ---------------------------------------------------------------
PORT_DROPS_MAX: Final = 32_768  # counters of a sandbox, by port and reason; 100 bytes each
ETHERTYPES_MAX: Final = 16  # of one port: they are one label

# --- Storm control ---------------------------------------------------------------------
STORM_MIN: Final = 10  # frames a second: ARP, neighbor discovery and DHCP of one container
STORM_MAX: Final = 1_000_000
STORM_REPORT_INTERVAL_S: Final = 5.0  # from one look at what was dropped to the next

# --- Interface names -------------------------------------------------------------------
INTERFACE_NAME_LENGTH_MAX: Final = 15  # IFNAMSIZ less the final zero
RIVALS_MAX: Final = 64  # hosts with another one's identity, remembered


# --- VLANs of ports --------------------------------------------------------------------
VLAN_MIN: Final = 2  # 1 is, on bridges, the number of the untagged part
VLAN_MAX: Final = 4094  # IEEE 802.1Q reserves 4095
BRIDGE_PORTS_MAX: Final = 1024  # of Linux (BR_MAX_PORTS)
VLAN_RANGES_MAX: Final = 10  # of one port, so that they fit into a label
