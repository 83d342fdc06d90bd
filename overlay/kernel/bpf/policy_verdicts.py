"""Find out, in a program, whether policies allow the connection of a packet.

The lower of its two addresses is the one that comes first in its key. Registers and stack are as
`policy_programs` has them.
"""

from __future__ import annotations

from typing import Final

from overlay.core.dataplane.state import GATEWAY_CLASS, NO_CLASS
from overlay.kernel.bpf import calls, numbers
from overlay.kernel.bpf.assembler import (
    BYTE,
    DOUBLE,
    HALF,
    R0,
    R1,
    R2,
    R3,
    R7,
    R8,
    R9,
    R10,
    WORD,
    Assembler,
)
from overlay.kernel.bpf.flow_keys import (
    DESTINATION,
    DESTINATION_PORT,
    FLOW,
    IS_SYN,
    KEY_PROTOCOL,
    KEY_VERSION,
    SOURCE,
    SOURCE_PORT,
    STATE,
    VERSION_6,
)
from overlay.kernel.bpf.policy_layout import (
    ALLOW,
    BACKWARD,
    CLASS_AT,
    CLASS_PREFIX,
    DIRECTIONS,
    FIRST,
    FORWARD,
    LOWER_CLASS,
    SECOND,
    SERVICE,
    SHUT_BIT,
    TABLE_BIT,
    UNKNOWN,
    UPPER_CLASS,
    VERDICT_AT,
    VERDICT_PREFIX,
    Maps,
)

_DNS, _PROBE = 0x3500, 0x0D1F  # 53, 7949 (`wire.codec.path_probe`)
# What a gateway's class is always reached by, and what it may always send, over UDP.
_TO_GATEWAY: Final = (_DNS, _PROBE, numbers.DHCP_SERVER, numbers.DHCPV6_SERVER)
_FROM_GATEWAY: Final = (numbers.DHCP_CLIENT, numbers.DHCPV6_CLIENT)


def begin_evaluation(program: Assembler, maps: Maps) -> None:
    """Set the direction and find the classes of both addresses; deny if nothing may be opened."""
    program.label("policy-new")
    program.set(R8, 0)
    program.move(R7, R9)
    program.load(BYTE, R1, R10, FLOW + KEY_PROTOCOL)
    program.jump_unequal(R1, numbers.TCP, "policy-evaluate")
    program.load(WORD, R1, R10, IS_SYN)
    program.jump_equal(R1, 1, "policy-evaluate")
    program.set(R7, UNKNOWN)
    program.label("policy-again")
    program.mask(R7, DIRECTIONS)
    program.label("policy-evaluate")
    for offset in (0, 4):
        program.store_constant(WORD, R10, FIRST + offset, 0)
        program.store_constant(WORD, R10, SECOND + offset, 0)
    program.load(WORD, R1, R10, STATE)
    program.jump_any_bit(R1, SHUT_BIT, "policy-deny")
    _find_class(program, maps, SOURCE, LOWER_CLASS)
    _find_class(program, maps, DESTINATION, UPPER_CLASS)


def _find_class(program: Assembler, maps: Maps, address: int, to: int) -> None:
    """Write the number of an address' class to the stack."""
    name = f"policy-class{to}"
    program.store_constant(WORD, R10, to, NO_CLASS)
    program.load(HALF, R1, R10, FLOW + KEY_VERSION)
    program.set(R2, CLASS_PREFIX + 32)
    program.jump_unequal(R1, VERSION_6, f"{name}-short")
    program.set(R2, CLASS_PREFIX + 128)
    program.label(f"{name}-short")
    program.store(WORD, R10, CLASS_AT, R2)
    program.store(HALF, R10, CLASS_AT + 6, R1)
    _store_table(program, CLASS_AT + 4)
    for offset in range(0, 16, 4):
        program.load(WORD, R1, R10, FLOW + address + offset)
        program.store(WORD, R10, CLASS_AT + 8 + offset, R1)
    calls.look_up(program, maps.classes, CLASS_AT)
    program.jump_equal(R0, 0, f"{name}-none")
    program.load(WORD, R1, R0, 0)
    program.store(WORD, R10, to, R1)
    program.label(f"{name}-none")


def evaluate(program: Assembler, maps: Maps) -> None:
    """Write the verdicts of the connection's direction, or of both."""
    program.jump_equal(R7, BACKWARD, "policy-backward")
    _find_verdict(program, maps, (LOWER_CLASS, UPPER_CLASS, DESTINATION_PORT), FIRST)
    program.jump_equal(R7, FORWARD, "policy-one-way")
    program.label("policy-backward")
    _find_verdict(program, maps, (UPPER_CLASS, LOWER_CLASS, SOURCE_PORT), SECOND)


def _find_verdict(program: Assembler, maps: Maps, way: tuple[int, int, int], to: int) -> None:
    """Write action and rule of a connection from a class to another and its port."""
    source, destination, port = way
    name = f"policy-verdict{to}"
    program.store_constant(HALF, R10, VERDICT_AT + 14, 0)
    program.load(BYTE, R3, R10, FLOW + KEY_PROTOCOL)
    program.load(HALF, R2, R10, FLOW + port)
    program.load(WORD, R1, R10, destination)
    program.jump_equal(R3, numbers.UDP, f"{name}-udp")
    program.jump_equal(R3, numbers.TCP, f"{name}-tcp")
    program.jump_unequal(R3, numbers.ICMPV6, f"{name}-key")
    program.set(R3, numbers.ICMP)
    program.jump(f"{name}-key")
    program.label(f"{name}-udp")
    program.jump_unequal(R1, GATEWAY_CLASS, f"{name}-other")
    for number in _TO_GATEWAY:
        program.jump_equal(R2, number, f"{name}-service")
    program.label(f"{name}-other")
    program.load(WORD, R1, R10, source)
    program.jump_unequal(R1, GATEWAY_CLASS, f"{name}-port")
    for number in _FROM_GATEWAY:
        program.jump_equal(R2, number, f"{name}-service")
    program.jump(f"{name}-port")
    program.label(f"{name}-tcp")
    program.jump_unequal(R1, GATEWAY_CLASS, f"{name}-port")
    program.jump_unequal(R2, _DNS, f"{name}-port")
    program.label(f"{name}-service")
    program.store_constant(WORD, R10, to, ALLOW | SERVICE)
    program.jump(f"{name}-done")
    program.label(f"{name}-port")
    program.store(HALF, R10, VERDICT_AT + 14, R2)
    program.label(f"{name}-key")
    program.store_constant(WORD, R10, VERDICT_AT, VERDICT_PREFIX + 64)
    _store_table(program, VERDICT_AT + 4)
    program.store_constant(HALF, R10, VERDICT_AT + 6, 0)
    for offset, where in ((8, source), (10, destination)):
        program.load(WORD, R1, R10, where)
        program.store(HALF, R10, VERDICT_AT + offset, R1)
    program.store_constant(BYTE, R10, VERDICT_AT + 12, 0)
    program.store(BYTE, R10, VERDICT_AT + 13, R3)
    calls.look_up(program, maps.verdicts, VERDICT_AT)
    program.jump_equal(R0, 0, f"{name}-done")
    for offset in (0, 4):
        program.load(WORD, R1, R0, offset)
        program.store(WORD, R10, to + offset, R1)
    program.label(f"{name}-done")


def decide(program: Assembler) -> None:
    """Make the verdict that counts the first one."""
    program.jump_unequal(R7, UNKNOWN, "policy-second")
    for verdict, label in ((FIRST, "policy-one-way"), (SECOND, "policy-second")):
        program.load(WORD, R1, R10, verdict)
        program.jump_any_bit(R1, SERVICE, label)
    for action, name in ((0, "deny"), (ALLOW, "allow")):
        for verdict, label in ((FIRST, "policy-one-way"), (SECOND, "policy-second")):
            after = f"policy-no-{name}{verdict}"
            program.load(WORD, R1, R10, verdict + 4)
            program.jump_equal(R1, 0, after)
            program.load(WORD, R1, R10, verdict)
            program.mask(R1, ALLOW)
            program.jump_equal(R1, action, label)
            program.label(after)
    program.jump("policy-one-way")
    program.label("policy-second")
    program.load(DOUBLE, R1, R10, SECOND)
    program.store(DOUBLE, R10, FIRST, R1)
    program.label("policy-one-way")
    program.load(WORD, R1, R10, FIRST)
    program.mask(R1, ALLOW)
    program.jump_equal(R1, 0, "policy-deny")


def _store_table(program: Assembler, to: int) -> None:
    """Write the number of the table in force to a key on the stack."""
    program.load(WORD, R2, R10, STATE)
    program.mask(R2, TABLE_BIT)
    program.store(HALF, R10, to, R2)
