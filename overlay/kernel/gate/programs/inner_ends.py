"""The programs at each pair's end inside the namespace.

The next hop of what is on its way out is kept in the frame's mark and tc_index, which forwarding
and fragmenting keep. What the host sends to a virtual address has no next hop yet: it is inward,
and its mark says what it is. What the rules decide, in the priority, is written to the frame, as it
is all that gets across a pair.
"""

from __future__ import annotations

from overlay.core.gate import inside
from overlay.kernel.bpf import numbers
from overlay.kernel.bpf.assembler import HALF, R1, R2, R3, R6, WORD, Assembler
from overlay.kernel.gate.programs import parts


def entering_program() -> bytes:
    """Return the program for what enters the namespace."""
    program = parts.begin()
    parts.reach(program, numbers.ETHERNET_SIZE, "mac", "drop")
    parts.compare_bytes(program, parts.DESTINATION_MAC, parts.INNER_MAC, "inward")
    program.load(HALF, R1, R2, parts.SOURCE_MAC)
    program.store(WORD, R6, numbers.TC_INDEX, R1)
    program.load(WORD, R1, R2, parts.SOURCE_MAC + 2)
    program.store(WORD, R6, numbers.MARK, R1)
    program.jump("pass")
    program.label("inward")
    program.set(R1, parts.INWARD)
    program.store(WORD, R6, numbers.TC_INDEX, R1)
    program.set(R1, 0)
    program.store(WORD, R6, numbers.PRIORITY, R1)  # no one's but that of the rules
    program.store(WORD, R6, numbers.MARK, R1)  # so that none is taken for VIRTUAL
    parts.finish(program)
    parts.finish(program, "drop", numbers.DROP)
    return program.code()


def exiting_program(*, signs_own: bool) -> bytes:
    """Return the program for what leaves the namespace.

    With `signs_own`, for the loopback's pair, by which nothing is on its way out: all that did not
    come from outside is what the namespace says itself, and may go on.
    """
    program = parts.begin()
    parts.reach(program, numbers.ETHERNET_SIZE, "mac", "drop")
    program.load(WORD, R1, R6, numbers.TC_INDEX)
    program.jump_equal(R1, parts.INWARD, "inward")
    if signs_own:
        program.jump("sign")
    else:
        _write_next_hop(program)
    program.label("inward")
    program.load(WORD, R1, R6, numbers.PRIORITY)
    program.set(R3, inside.SIGNED)
    program.jump_same(R1, R3, "sign")
    program.set(R3, inside.SIGNED_BORROWED)
    program.jump_different(R1, R3, "pass")
    program.set(R1, parts.BORROWED_SIGN)
    program.jump("write")
    program.label("sign")
    program.set(R1, parts.SIGN)
    program.label("write")
    program.store(HALF, R2, parts.SOURCE_MAC, R1)
    parts.finish(program)
    parts.finish(program, "drop", numbers.DROP)
    return program.code()


def _write_next_hop(program: Assembler) -> None:
    program.store(HALF, R2, parts.DESTINATION_MAC, R1)
    program.load(WORD, R1, R6, numbers.MARK)
    program.store(WORD, R2, parts.DESTINATION_MAC + 2, R1)
    program.set(R1, parts.OUTWARD_SIGN)
    program.jump("write")
