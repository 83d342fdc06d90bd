"""Bounds of the gate, where a host translates apart from its own traffic (ADR 0019)."""

from __future__ import annotations

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from typing import Final

GATE_INTERFACES_MAX: Final = 64  # of a host; each takes 1 ms to be made, and two routing tables
GATE_ADDRESSES_MAX: Final = 1024  # of a host, of each family
GATE_NETWORKS_MAX: Final = 1024  # ranges of exposed networks, of each family
GATE_ENTRIES_MAX: Final = 16_384  # in each map of the programs: more than of any of these
GATE_PORTS_MAX: Final = 16_384  # with which it masquerades: a quarter of all
GATE_PORTS_MIN: Final = 4096  # as many connections at once to one port of one address elsewhere
GATE_AFTER_BOOT_S: Final = 120.0  # other programs that track have begun by then, with "auto"
GATE_RETIRING_S: Final = 5.0  # from a look for connections of before to the next, at first
GATE_RETIRING_MAX_S: Final = 300.0  # each look reads the kernel's whole table of connections
GATE_RETRY_S: Final = 30.0  # what is made and removed again would itself be a reason to try again
GATE_RETRY_STOPPING_S: Final = 3600.0  # where each attempt stops the host's interfaces
GATE_PATIENCE_S: Final = 5.0  # for a missing address: the end of a gate cuts connections off
GATE_RULES_SIZE_MAX: Final = (
    4 * 1024 * 1024
)  # of others' rules in one table, bytes: some 10,000 rules
