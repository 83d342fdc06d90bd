"""Keys and values of the maps of policies, as programs and agent read and write them."""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

STATE_VALUE: Final = struct.Struct("=II")  # generation; nothing
FLOW_VALUE: Final = struct.Struct("=IIII")  # generation, last seen, direction and marks, rule
CLASS_KEY: Final = struct.Struct("=IHH16s")  # prefix length, table, IP version, address
CLASS_VALUE: Final = struct.Struct("=I")
CLASS_PREFIX: Final = 32  # bits before the address
VERDICT_KEY: Final = struct.Struct("=IHxxHHxB2s")  # prefix length, table, classes, protocol, port
VERDICT_PREFIX: Final = 32  # bits before the classes
VERDICT_VALUE: Final = struct.Struct("=II")  # action, rule
COUNTER_VALUE: Final = struct.Struct("=QQ")  # connections allowed, packets denied
DROP_KEY: Final = struct.Struct("=I16s16s2sBB")  # rule, addresses, port, protocol, IP version
DROP_VALUE: Final = struct.Struct("=Q")
ALLOW, LOG, SERVICE = 1, 2, 4  # a verdict's action; the last is of programs alone
# The generation's bits: which table of two is in force; nothing may be opened; then a counter.
TABLE_BIT, SHUT_BIT, GENERATION_STEP = 1, 2, 4
# A connection's direction, which bits hold it, and the mark of one that is denied.
FORWARD, BACKWARD, UNKNOWN, DIRECTIONS, IS_DENIED = 0, 1, 2, 3, 4

# The stack, below that of `flow_keys`.
VALUE: Final = -336
CLASS_AT: Final = -360
VERDICT_AT: Final = -376
LOWER_CLASS, UPPER_CLASS = -380, -384
FIRST, SECOND = -392, -400  # verdicts of both directions: action, rule
DROP_AT: Final = -440
DROP_COUNT: Final = -448
RULE: Final = -452
SAVED: Final = -456  # for the caller


class Maps(NamedTuple):
    """Descriptors of the maps of one network's policies."""

    state: int
    flows: int
    classes: int
    verdicts: int
    counters: int
    drops: int
