"""Judge frames by a network's policies, in programs of the fast path and of the slow one.

A connection that is known passes after one lookup; its answers and the ICMP errors about it as
well. What opens a connection is judged by the classes of its two addresses, and remembered if it is
allowed. Each change of the rules raises a number, and a connection remembered under another one is
judged again with its next packet: if it is denied now, it stays remembered as such, so that its
answers can't pass for a connection of their own.

TCP without a beginning (from before the policies, or forgotten) is judged by the rules of both
directions, since either end may have opened it: a rule that denies wins, then one that allows,
then the default.

The stack is shared with `flow_keys`; R6 is the
frame, R7 the direction of the connection (`FORWARD`: opened by the lower address), R8 the
connection's entry or zero, R9 the direction of the packet.
"""

from __future__ import annotations

from typing import Final

from overlay import limits
from overlay.kernel.bpf import calls, flow_keys, numbers
from overlay.kernel.bpf.assembler import (
    BYTE,
    DOUBLE,
    HALF,
    R0,
    R1,
    R2,
    R6,
    R7,
    R8,
    R10,
    WORD,
    Assembler,
)
from overlay.kernel.bpf.flow_keys import (
    ALLOWED,
    DENIED,
    DESTINATION_PORT,
    FLOW,
    FRAGMENT_KEY,
    IS_FIRST,
    IS_SYN,
    KEY_PROTOCOL,
    KEY_VERSION,
    LATER_FRAGMENT,
    PACKET,
    SOURCE_PORT,
    STATE,
)
from overlay.kernel.bpf.policy_layout import (
    DROP_AT,
    DROP_COUNT,
    FIRST,
    IS_DENIED,
    LOG,
    RULE,
    SERVICE,
    VALUE,
    Maps,
)
from overlay.kernel.bpf.policy_verdicts import begin_evaluation, decide, evaluate

_IDLE_MAX: Final = limits.POLICY_FLOW_IDLE_S * 10**9 >> calls.TIME_SHIFT
_FRAGMENT_AGE_MAX: Final = 30 * 10**9 >> calls.TIME_SHIFT  # as hosts keep fragments (ip(7))


def leaving_program(maps: Maps, *marks: int) -> bytes:
    """Return the program for frames that leave by a port or VTEP; only unmarked ones are judged.

    It removes the mark, as a VTEP would look up a marked frame's route each time
    (`ip_tunnel_dst_cache_usable`, include/net/ip_tunnels.h).
    """
    program = Assembler()
    program.move(R6, R1)
    program.load(WORD, R1, R6, numbers.MARK)
    for mark in marks:
        program.jump_equal(R1, mark, "judged")
    judge(program, maps)
    program.set(R0, numbers.PASS)
    program.exit()
    program.label("judged")
    program.set(R1, 0)
    program.store(WORD, R6, numbers.MARK, R1)
    program.set(R0, numbers.PASS)
    program.exit()
    return program.code()


def shut_program() -> bytes:
    """Return a program that drops everything, for a port whose own can't be loaded."""
    program = Assembler()
    program.set(R0, numbers.DROP)
    program.exit()
    return program.code()


def judge(program: Assembler, maps: Maps) -> None:
    """Drop the frame in R6 unless policies allow it; then go on. Changes all other registers."""
    flow_keys.read_packet(program)
    flow_keys.read_related(program)
    _let_errors_through(program, maps)
    flow_keys.end_related(program)
    _recognize(program, maps)
    begin_evaluation(program, maps)
    evaluate(program, maps)
    decide(program)
    _allow(program, maps)
    _deny(program, maps)
    _remember_fragment(program, maps)
    program.jump(ALLOWED)
    _judge_later_fragment(program, maps)
    program.label(DENIED)
    program.set(R0, numbers.DROP)
    program.exit()
    program.label(ALLOWED)


def _let_errors_through(program: Assembler, maps: Maps) -> None:
    """Allow an ICMP error about a connection that is known and allowed."""
    calls.look_up(program, maps.flows, FLOW)
    program.jump_equal(R0, 0, "policy-unknown")
    _load_state(program, maps)
    program.load(WORD, R2, R0, 0)
    program.jump_different(R1, R2, "policy-unknown")
    program.load(WORD, R1, R0, 8)
    program.jump_any_bit(R1, IS_DENIED, "policy-unknown")
    program.jump(ALLOWED)
    program.label("policy-unknown")


def _recognize(program: Assembler, maps: Maps) -> None:
    """Allow or deny what belongs to a known connection; R8 is its entry if it's judged again."""
    _load_state(program, maps)
    program.store(WORD, R10, STATE, R1)
    calls.look_up(program, maps.flows, FLOW)
    program.jump_equal(R0, 0, "policy-new")
    program.load(WORD, R1, R10, IS_SYN)
    program.jump_equal(R1, 1, "policy-new")
    program.move(R8, R0)
    program.load(BYTE, R1, R10, FLOW + KEY_PROTOCOL)
    program.jump_equal(R1, numbers.TCP, "policy-in-time")
    calls.load_time(program)
    program.load(WORD, R1, R8, 4)
    program.jump_same(R0, R1, "policy-in-time")
    program.store(WORD, R8, 4, R0)
    program.subtract(R0, R1)
    program.jump_above(R0, _IDLE_MAX, "policy-new")
    program.label("policy-in-time")
    program.load(WORD, R7, R8, 8)
    program.load(WORD, R1, R10, STATE)
    program.load(WORD, R2, R8, 0)
    program.jump_different(R1, R2, "policy-again")
    program.jump_any_bit(R7, IS_DENIED, "policy-still-denied")
    program.jump("policy-established")
    program.label("policy-still-denied")
    program.load(WORD, R1, R8, 12)
    program.store(WORD, R10, FIRST + 4, R1)
    program.store_constant(WORD, R10, FIRST, 0)
    program.jump("policy-deny")


def _allow(program: Assembler, maps: Maps) -> None:
    """Remember the connection, as allowed by the rules of now."""
    program.jump_unequal(R8, 0, "policy-renewed")
    program.load(WORD, R1, R10, FIRST)
    program.jump_any_bit(R1, SERVICE, "policy-allowed-once")
    _count(program, maps, 0)
    program.label("policy-allowed-once")
    program.load(WORD, R1, R10, STATE)
    program.store(WORD, R10, VALUE, R1)
    calls.load_time(program)
    program.store(WORD, R10, VALUE + 4, R0)
    program.store(WORD, R10, VALUE + 8, R7)
    program.load(WORD, R1, R10, FIRST + 4)
    program.store(WORD, R10, VALUE + 12, R1)
    calls.update(program, maps.flows, FLOW, VALUE)
    program.jump("policy-established")
    program.label("policy-renewed")
    calls.load_time(program)
    program.store(WORD, R8, 4, R0)
    _renew(program)
    program.jump("policy-established")


def _deny(program: Assembler, maps: Maps) -> None:
    """Count and drop, and remember a connection that was allowed before as denied."""
    program.label("policy-deny")
    program.jump_equal(R8, 0, "policy-counted")
    program.set_bits(R7, IS_DENIED)
    _renew(program)
    program.label("policy-counted")
    _count(program, maps, 8)
    program.load(WORD, R1, R10, FIRST)
    program.mask(R1, LOG)
    program.jump_equal(R1, 0, DENIED)
    program.load(WORD, R1, R10, FIRST + 4)
    program.store(WORD, R10, DROP_AT, R1)
    for offset in range(0, SOURCE_PORT, 4):
        program.load(WORD, R1, R10, PACKET + offset)
        program.store(WORD, R10, DROP_AT + 4 + offset, R1)
    program.load(HALF, R1, R10, PACKET + DESTINATION_PORT)
    program.store(HALF, R10, DROP_AT + 36, R1)
    program.load(BYTE, R1, R10, PACKET + KEY_PROTOCOL)
    program.store(BYTE, R10, DROP_AT + 38, R1)
    program.load(HALF, R1, R10, PACKET + KEY_VERSION)
    program.store(BYTE, R10, DROP_AT + 39, R1)
    calls.look_up(program, maps.drops, DROP_AT)
    program.jump_equal(R0, 0, "policy-first-drop")
    program.set(R1, 1)
    program.count(R0, 0, R1)
    program.jump(DENIED)
    program.label("policy-first-drop")
    program.store_constant(DOUBLE, R10, DROP_COUNT, 1)
    calls.update(program, maps.drops, DROP_AT, DROP_COUNT)
    program.jump(DENIED)


def _renew(program: Assembler) -> None:
    """Write generation, direction and rule to the connection's entry."""
    program.load(WORD, R1, R10, STATE)
    program.store(WORD, R8, 0, R1)
    program.store(WORD, R8, 8, R7)
    program.load(WORD, R1, R10, FIRST + 4)
    program.store(WORD, R8, 12, R1)


def _remember_fragment(program: Assembler, maps: Maps) -> None:
    """After a packet's first fragment is allowed, let the others follow."""
    program.label("policy-established")
    program.load(WORD, R1, R10, IS_FIRST)
    program.jump_equal(R1, 0, ALLOWED)
    flow_keys.write_fragment_key(program)
    program.load(WORD, R1, R10, STATE)
    program.store(WORD, R10, VALUE, R1)
    calls.load_time(program)
    program.store(WORD, R10, VALUE + 4, R0)
    program.store_constant(DOUBLE, R10, VALUE + 8, 0)
    calls.update(program, maps.flows, FRAGMENT_KEY, VALUE)


def _judge_later_fragment(program: Assembler, maps: Maps) -> None:
    """Allow a fragment whose packet's first one was allowed."""
    program.label(LATER_FRAGMENT)
    flow_keys.write_fragment_key(program)
    calls.look_up(program, maps.flows, FRAGMENT_KEY)
    program.jump_equal(R0, 0, DENIED)
    program.move(R8, R0)
    _load_state(program, maps)
    program.load(WORD, R2, R8, 0)
    program.jump_different(R1, R2, DENIED)
    calls.load_time(program)
    program.load(WORD, R1, R8, 4)
    program.subtract(R0, R1)
    program.jump_above(R0, _FRAGMENT_AGE_MAX, DENIED)
    program.jump(ALLOWED)


def _count(program: Assembler, maps: Maps, offset: int) -> None:
    """Count the first verdict's rule."""
    name = f"policy-count{offset}"
    program.load(WORD, R1, R10, FIRST + 4)
    program.store(WORD, R10, RULE, R1)
    calls.look_up(program, maps.counters, RULE)
    program.jump_equal(R0, 0, name)
    program.set(R1, 1)
    program.count(R0, offset, R1)
    program.label(name)


def _load_state(program: Assembler, maps: Maps) -> None:
    """Load the generation of the rules into R1."""
    program.load_map_value(R1, maps.state)
    program.load(WORD, R1, R1, 0)
