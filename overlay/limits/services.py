"""Bounds of services: their records, their backends, and health checks."""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Final


# --- Records ---------------------------------------------------------------------------
SERVICES_PER_NETWORK_MAX: Final = 256  # the first by name count
SERVICE_PORTS_MAX: Final = 16
SERVICE_SELECTOR_MAX: Final = 4  # labels that a backend must have, all of them
SERVICE_NAMES_MAX: Final = 32  # backends, weights or drained containers by name, of one service
SERVICE_INGRESS_MAX: Final = 8  # published ports of one service
SERVICE_SOURCES_MAX: Final = 8  # ranges that may ask one of these
SERVICE_BACKENDS_MAX: Final = 250  # a table of 1,021 slots shares fairly among so many
SERVICE_WEIGHT_MAX: Final = 100
HEALTH_PER_LOG_MAX: Final = 8192  # results of health checks, of one host on one network

# --- Health checks ---------------------------------------------------------------------
CHECK_PERIOD_MIN_S: Final = 0.2
CHECK_PERIOD_MAX_S: Final = 300.0
CHECK_PERIOD_DEFAULT_S: Final = 2.0
CHECK_TIMEOUT_MIN_S: Final = 0.05
CHECK_TIMEOUT_MAX_S: Final = 60.0
CHECK_TIMEOUT_DEFAULT_S: Final = 1.0
CHECK_THRESHOLD_MAX: Final = 10
CHECK_THRESHOLD_DEFAULT: Final = 3
CHECK_ARGUMENT_SIZE_MAX: Final = 200
CHECK_KILL_S: Final = 1.0  # until a killed program's end is seen: the kernel may hold it up
CHECK_LINE_SIZE: Final = 200  # of what such a program prints
CHECK_OUTPUT_PART_SIZE: Final = 4096  # read at once
CHECK_OUTPUT_SIZE_MAX: Final = 65_536  # then its pipe is full, and it waits for its timeout
CHECK_SETTLE_S: Final = 0.05  # from a result to its record: one write for many
CHECKS_MAX: Final = 2048  # of one host: any member may ask for them
CHECKS_AT_ONCE_MAX: Final = 32  # of one host; others wait for their turn
CHECK_RECOVERY_MIN_S: Final = 5.0  # from a failure to the next healthy record: flapping is bounded

# --- Data plane ------------------------------------------------------------------------
# Slots of a table that spreads connections: both prime (`core.services.maglev`).
SERVICE_SLOTS_SMALL: Final = 251  # up to 25 backends: 30 kB of kernel memory per container
SERVICE_SLOTS_LARGE: Final = 1021  # for more backends: a tenth more or less at 100 of them
SERVICE_SETTLE_S: Final = 0.05  # one pass over the containers covers a burst of changes
SERVICE_TABLES_OPEN_MAX: Final = 64  # sockets of containers that a pass keeps, to close together
SERVICE_LED_AT_ONCE: Final = 16  # containers in one call of the kernel thread: others wait for it
# Of a client's table that was read, for each element, before it is read again: reading one takes
# 20 us, and root in the container can change rules there all the time.
SERVICE_ELEMENT_REST_S: Final = 0.0004

# What the programs at connect(2) know; the rest is left to the tables of the clients.
SERVICE_CONNECT_PORTS_MAX: Final = 65_536  # virtual ports times containers: 6 MB of kernel memory
SERVICE_CONNECT_RINGS_MAX: Final = 4_096  # virtual ports with different backends, 6 kB each

# --- Hosts of backends -----------------------------------------------------------------
# A dead host is noticed at most (misses + 1) intervals after its last answer: below 1 s, where
# gossip takes 1 to 2 s.
LIVENESS_INTERVAL_S: Final = 0.2  # of the echo requests to each host with backends
LIVENESS_ANSWER_S: Final = 0.15  # an answer that takes longer is late: below the interval
LIVENESS_MISSES: Final = 3  # in a row: the host is silent
LIVENESS_PROOF: Final = 5  # answers in a row, all in time, before silence means anything
LIVENESS_OPEN_MAX: Final = 16  # requests whose answers still count, of one host
LIVENESS_HOSTS_MAX: Final = 64  # hosts that one host watches, 320 requests a second
LIVENESS_SILENCE_MAX_S: Final = 10.0  # of a host that gossip finds alive all the time
LIVENESS_AGENTLESS_MAX_S: Final = 60.0  # backends of a host that answers, and its agent does not

assert LIVENESS_ANSWER_S < LIVENESS_INTERVAL_S
assert (LIVENESS_MISSES + 1) * LIVENESS_INTERVAL_S + 2 * SERVICE_SETTLE_S < 1.0
assert LIVENESS_MISSES < LIVENESS_OPEN_MAX
