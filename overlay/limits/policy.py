"""Bounds of policies: their records, how many of them count, and the kernel's maps."""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Final


# --- Records ---------------------------------------------------------------------------
POLICIES_PER_NETWORK_MAX: Final = 256  # more cannot be created
POLICY_PEERS_MAX: Final = 16  # of each side
POLICY_PORTS_MAX: Final = 16  # ranges

# --- The maps of one network's sandbox ---------------------------------------------------
# Numbers have 16 bits in the kernel's keys.
POLICY_CLASSES_MAX: Final = 4096
# Ranges: endpoints, subnets, ranges of policies; an address takes some 80 bytes.
POLICY_RANGES_MAX: Final = 65_536
POLICY_VERDICTS_MAX: Final = 65_536
POLICY_RULES_MAX: Final = 4096  # numbers of rules, with 16 bytes of counters each
# Connections remembered: 112 bytes each. Beyond it, those unused for longest are forgotten.
POLICY_FLOWS_MAX: Final = 65_536
POLICY_FLOW_IDLE_S: Final = 180  # of anything but TCP, as conntrack has it for UDP (nf_conntrack)
POLICY_DROPS_MAX: Final = 1024  # different packets denied by a rule that logs


# --- Reports ---------------------------------------------------------------------------
POLICY_REPORT_INTERVAL_S: Final = 5.0  # from one look at what was denied to the next
POLICY_QUIET_S: Final = 60.0  # nothing denied for so long: the next packet is an event again
POLICY_SAMPLES_SHOWN_MAX: Final = 32  # of denied packets, those with the most
