"""The programs for what comes back by a pair's end in the host's namespace.

What is on its way out leaves by the interface, to the next hop chosen before: also to a container
whose client is masqueraded. All else goes on as if the interface had received it: with a mark to
enter an exposed network, if the rules inside have signed it and it is for one, else as it was.
"""

from __future__ import annotations

from typing import Final

from overlay.core.gate import inside
from overlay.core.gate.state import InterfaceKind
from overlay.kernel.bpf import numbers
from overlay.kernel.bpf.assembler import (
    BYTE,
    HALF,
    R0,
    R1,
    R2,
    R3,
    R4,
    R6,
    R7,
    R8,
    R10,
    WORD,
    Assembler,
)
from overlay.kernel.bpf.calls import look_up
from overlay.kernel.gate.maps import GateMaps
from overlay.kernel.gate.programs import parts
from overlay.kernel.gate.programs.parts import HEADERS, IPV6_HEADER, IpHeader

_LOOPBACK_INDEX: Final = 1
_END: Final = -4  # on the stack


def returning_program(maps: GateMaps, kind: InterfaceKind) -> bytes:
    """Return the program for the pairs of a kind of interface."""
    program = parts.begin()
    program.load(WORD, R1, R6, numbers.IFINDEX)
    program.store(WORD, R10, _END, R1)
    look_up(program, maps.interfaces, _END)
    program.jump_equal(R0, 0, "drop")
    program.move(R8, R0)
    parts.branch_by_version(program, "drop")
    for header in HEADERS:
        program.label(header.named("version"))
        parts.reach(program, header.end, header.named("header"), "drop")
        if kind == "loopback":
            _restore_loopback(program, header)
        program.load(HALF, R1, R2, parts.SOURCE_MAC)
        if kind != "loopback":
            program.jump_equal(R1, parts.OUTWARD_SIGN, "leave")
        if kind == "outside":
            _choose_mark(program, header)
        else:
            program.jump_unequal(R1, parts.SIGN, "unchanged")
        parts.look_own_up(program, maps, header, header.destination)
        program.jump_unequal(R0, 0, header.named("own") if kind == "network" else "unchanged")
        parts.reach(program, header.end, header.named("other"), "drop")
        if kind == "network":
            _answer_loopback(program, header)
        parts.look_range_up(program, maps, header, header.destination)
        program.jump_unequal(R0, 0, "accept" if kind == "outside" else "send")
        program.jump("unchanged")
        if kind == "network":
            _answer_host(program, maps, header)
    if kind != "loopback":
        _leave(program)
    if kind == "outside":
        program.label("accept")
        program.store(WORD, R6, numbers.MARK, R7)
        program.jump("receive")
    else:
        _send(program)
    if kind == "network":
        _loop(program)
    _receive(program)
    parts.finish(program, "drop", numbers.DROP)
    return program.code()


def _choose_mark(program: Assembler, header: IpHeader) -> None:
    """Have R7 be the mark for what is signed; go on with nothing else."""
    program.set(R7, inside.ACCEPTED)
    program.jump_equal(R1, parts.SIGN, header.named("signed"))
    program.set(R7, inside.ACCEPTED_BORROWED)
    program.jump_unequal(R1, parts.BORROWED_SIGN, "unchanged")
    program.label(header.named("signed"))


def _restore_loopback(program: Assembler, header: IpHeader) -> None:
    """Give back its addresses to what went to the loopback's, and is not translated."""
    source, destination = header.loopback_inside
    other = header.named("no loopback")
    parts.compare_bytes(program, header.destination, destination, other)
    parts.compare_bytes(program, header.source, source, other)
    parts.write_constant(program, header.source, header.loopback)
    parts.write_constant(program, header.destination, header.loopback)
    program.label(other)
    if header is IPV6_HEADER:
        _restore_error(program, header)


def _restore_error(program: Assembler, header: IpHeader) -> None:
    """Do so for an error about such a packet, which it has behind its own header."""
    source, _ = header.loopback_inside
    other = header.named("no error")
    program.load(BYTE, R1, R2, header.protocol)
    program.jump_unequal(R1, header.protocol_of_icmp, other)
    parts.compare_bytes(program, header.destination, source, other)
    _restore_embedded(program, header, "drop")
    parts.write_constant(program, header.destination, header.loopback)
    program.jump("unchanged")
    program.label(other)


def _restore_embedded(program: Assembler, header: IpHeader, other: str) -> None:
    """Do so in the packet that an error is about; jump to `other` if it is not that."""
    source, destination = header.loopback_inside
    embedded = header.end + 8
    reached = header.named("embedded")
    parts.reach(program, embedded + header.end - numbers.ETHERNET_SIZE, reached, other)
    first = embedded + header.source - numbers.ETHERNET_SIZE
    second = embedded + header.destination - numbers.ETHERNET_SIZE
    parts.compare_bytes(program, first, source, other)
    parts.compare_bytes(program, second, destination, other)
    for place in (first, second):
        parts.write_constant(program, place, header.loopback)


def _answer_loopback(program: Assembler, header: IpHeader) -> None:
    """Give back its addresses to an answer to the loopback's, and to what an error is about."""
    source, _ = header.loopback_inside
    other = header.named("no loopback")
    parts.compare_bytes(program, header.destination, source, other)
    parts.write_constant(program, header.source, header.loopback)
    parts.write_constant(program, header.destination, header.loopback)
    program.load(BYTE, R1, R2, header.protocol)
    program.jump_unequal(R1, header.protocol_of_icmp, "loop")
    _restore_embedded(program, header, "loop")
    program.jump("loop")
    program.label(other)


def _answer_host(program: Assembler, maps: GateMaps, header: IpHeader) -> None:
    """Give the loopback what answers a connection of the host's to a published port of its own."""
    program.label(header.named("own"))
    parts.reach(program, header.end, header.named("answer"), "drop")
    parts.look_own_up(program, maps, header, header.source)
    program.jump_unequal(R0, 0, "loop")
    program.jump("unchanged")  # a virtual address answers where it was asked


def _leave(program: Assembler) -> None:
    program.label("leave")
    parts.write_mark(program, inside.RETURNED)
    parts.reach(program, numbers.ETHERNET_SIZE, "leaving", "drop")
    _write_mac(program, parts.SOURCE_MAC)
    program.load(WORD, R1, R8, 0)
    program.set(R2, 0)
    program.call(numbers.REDIRECT)
    program.exit()


def _send(program: Assembler) -> None:
    """Send to a container by its network's interface, which asks for its MAC."""
    program.label("send")
    program.load(WORD, R1, R0, 0)
    for register in (R2, R3, R4):
        program.set(register, 0)
    program.call(numbers.REDIRECT_NEIGH)
    program.exit()


def _loop(program: Assembler) -> None:
    program.label("loop")
    parts.write_mark(program, inside.RETURNED)
    parts.reach(program, numbers.ETHERNET_SIZE, "looping", "drop")
    parts.write_constant(program, parts.DESTINATION_MAC, bytes(6))
    program.set(R1, _LOOPBACK_INDEX)
    program.set(R2, numbers.REDIRECT_INGRESS)
    program.call(numbers.REDIRECT)
    program.exit()


def _receive(program: Assembler) -> None:
    program.label("unchanged")
    parts.write_mark(program, inside.RETURNED)
    program.label("receive")
    parts.reach(program, numbers.ETHERNET_SIZE, "receiving", "drop")
    _write_mac(program, parts.DESTINATION_MAC)
    program.load(WORD, R1, R8, 0)
    program.set(R2, numbers.REDIRECT_INGRESS)
    program.call(numbers.REDIRECT)
    program.exit()


def _write_mac(program: Assembler, offset: int) -> None:
    """Write the interface's MAC."""
    for size, part in ((WORD, 0), (HALF, 4)):
        program.load(size, R7, R8, 4 + part)
        program.store(size, R2, offset + part, R7)
