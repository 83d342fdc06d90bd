"""Bounds of probes, and of what looks for faults: netcheck, traces and captures."""

from __future__ import annotations

from overlay.limits.wire import PAYLOAD_SIZE_MAX

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Final


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
PATH_FRESH_S: Final = 0.5  # an attach does not ask again what was proven since
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
MISDIRECTED_RECENT_S: Final = 30.0  # how long packets from a wrong interface are told of
CHECKSUM_ERRORS_INTERVAL_S: Final = 10.0  # between readings of containers' counters, at least
CHECKSUM_ERRORS_INTERVAL_MAX_S: Final = 15.0  # with many containers
CHECKSUM_ERRORS_RECENT_S: Final = 60.0  # readings that are compared
assert CHECKSUM_ERRORS_INTERVAL_MAX_S <= CHECKSUM_ERRORS_RECENT_S / 2
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

# --- Status --------------------------------------------------------------------------------
DECLARED_FAULTS_MAX: Final = 8  # objects of a kind that `status` names; any member may declare many
