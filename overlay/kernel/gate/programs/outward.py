"""The programs for what the host's interfaces send.

Where an interface leads outside, packets of exposed networks go to the gate, and errors of ICMP, as
these may name a connection as the network knows it. So does what the host itself sends by UDP from
a published port: the gate then tells the answer from a new flow. The next hop's MAC takes the place
of the source's, so that the way back is the one that the host's routes chose.

On a network's interface, what goes to a container whose replies take another route comes to the
gate a second time, after the host's own rules, and so does the same of the host's own: its client
is masqueraded there, and errors about what it answers name the client. What the host sends to a
virtual address, whose next hop is the interface itself, goes there as well, and comes back for a
container. Users of the host may send from its own addresses alone: for IPv6 any other takes no
privilege (IPV6_FREEBIND), and it may be another container's.
"""

from __future__ import annotations

from typing import Final

from overlay.core.gate import inside
from overlay.kernel.bpf import numbers
from overlay.kernel.bpf.assembler import (
    BYTE,
    HALF,
    R0,
    R1,
    R2,
    R3,
    R4,
    R5,
    R6,
    R7,
    R8,
    R10,
    WORD,
    Assembler,
)
from overlay.kernel.bpf.calls import look_up
from overlay.kernel.gate.maps import OWN, UDP_PUBLISHED, GateMaps
from overlay.kernel.gate.programs import parts
from overlay.kernel.gate.programs.parts import HEADERS, IPV4_HEADER, IPV6_HEADER, IpHeader

_ERRORS_IPV4: Final = (3, 11, 12)  # unreachable, time exceeded, a parameter's problem
_ERROR_IPV6_MAX: Final = 127
_MULTICAST: Final = 1
_END: Final = -4  # on the stack


def outward_program(maps: GateMaps) -> bytes:
    """Return the program for what an interface sends that leads outside."""
    program = parts.begin()
    parts.return_marked(program, accepts=False)
    parts.branch_by_version(program, "pass")
    for header in HEADERS:
        program.label(header.named("version"))
        parts.reach(program, header.end, header.named("source"))
        parts.require_range_bit(program, maps, header, header.source, header.named("own"))
        parts.look_range_up(program, maps, header, header.source)
        parts.reach(program, header.end, header.named("again"))
        program.jump_equal(R0, 0, header.named("own"))
        program.load(BYTE, R1, R2, parts.DESTINATION_MAC)
        program.jump_any_bit(R1, _MULTICAST, "drop")  # it would find no way back
        program.jump(header.named("steer"))
        program.label(header.named("own"))
        _choose_own(program, maps, header)
        _steer(program, maps, header)
    parts.finish_returned(program)
    parts.finish(program, "drop", numbers.DROP)
    return program.code()


def _choose_own(program: Assembler, maps: GateMaps, header: IpHeader) -> None:
    """Go on with errors of ICMP alone, and steer UDP from a published port.

    The namespace then knows the answer to it, and takes it for no new flow to the port. A packet in
    pieces passes: only the first has the port.
    """
    program.load(BYTE, R1, R2, header.protocol)
    program.jump_unequal(R1, numbers.UDP, header.named("no UDP"))
    parts.reach(program, header.end + 8, header.named("port"))
    if header is IPV4_HEADER:
        program.load(HALF, R1, R2, parts.IPV4_FRAGMENT)
        program.jump_any_bit(R1, numbers.FRAGMENT, "pass")
        program.load(BYTE, R1, R2, parts.IPV4_START)
        program.jump_unequal(R1, parts.PLAIN_IPV4, "pass")  # it has options
    program.load(HALF, R5, R2, header.end)
    program.set(R4, UDP_PUBLISHED)
    parts.require_bit(program, maps, "pass")
    program.jump(header.named("steer"))
    program.label(header.named("no UDP"))
    program.jump_unequal(R1, header.protocol_of_icmp, "pass")
    parts.reach(program, header.end + 8, header.named("error"))
    program.load(BYTE, R1, R2, header.end)
    if header is IPV4_HEADER:
        for kind in _ERRORS_IPV4:
            program.jump_equal(R1, kind, header.named("steer"))
        program.jump("pass")
    else:
        program.jump_above(R1, _ERROR_IPV6_MAX, "pass")


def _steer(
    program: Assembler, maps: GateMaps, header: IpHeader, *, may_be_virtual: bool = False
) -> None:
    """Send the frame to the namespace; drop it if the pair is gone, as it must not leave so.

    With `may_be_virtual`, one for a virtual address, as R8 then says, has no next hop to keep.
    """
    program.label(header.named("steer"))
    program.load(WORD, R1, R6, numbers.VLAN_PRESENT)
    program.jump_unequal(R1, 0, "pass")
    program.load(WORD, R1, R6, numbers.IFINDEX)
    program.store(WORD, R10, _END, R1)
    look_up(program, maps.ends, _END)
    program.jump_equal(R0, 0, "drop")
    program.load(WORD, R7, R0, 0)
    parts.reach(program, header.end, header.named("hops"))
    program.load(BYTE, R1, R2, parts.DESTINATION_MAC)
    program.jump_any_bit(R1, _MULTICAST, "pass")
    parts.allow_one_hop_more(program, header)
    for size, part in ((WORD, 0), (HALF, 4)):
        program.load(size, R1, R2, parts.DESTINATION_MAC + part)
        program.store(size, R2, parts.SOURCE_MAC + part, R1)
    if may_be_virtual:
        program.jump_equal(R8, 0, header.named("known hop"))
        parts.write_constant(program, parts.SOURCE_MAC, parts.VIRTUAL_SOURCE)
        program.label(header.named("known hop"))
    parts.write_constant(program, parts.DESTINATION_MAC, parts.INNER_MAC)
    program.move(R1, R7)
    program.set(R2, 0)
    program.call(numbers.REDIRECT)
    program.exit()


def sent_program(maps: GateMaps) -> bytes:
    """Return the program for what a network's interface sends.

    The host's own must be from its addresses. What the host forwards, or the gate has sent, came by
    an interface.
    """
    program = parts.begin()
    parts.return_marked(program, accepts=False)
    _note_virtual(program)
    parts.jump_if_marked(program, inside.ACCEPTED_BORROWED, "borrowed")
    program.load(WORD, R1, R6, numbers.INGRESS_IFINDEX)
    program.jump_unequal(R1, 0, "pass")
    program.jump_unequal(R8, 0, "virtual")
    parts.jump_if_marked(program, inside.ACCEPTED, "pass")
    program.label("virtual")
    parts.branch_by_version(program, "pass")
    for header in HEADERS:
        program.label(header.named("version"))
        parts.reach(program, header.end, header.named("header"))
        _pass_without_address(program, header)
        parts.look_own_up(program, maps, header, header.source)
        program.jump_equal(R0, 0, "refuse")
        program.load(WORD, R1, R0, 0)
        program.jump_unequal(R1, OWN, "refuse")
        program.jump_unequal(R8, 0, header.named("steer"))
        parts.reach(program, header.end, header.named("own"))
        _choose_own(program, maps, header)
        _steer(program, maps, header, may_be_virtual=True)
    program.label("borrowed")
    program.load(WORD, R1, R6, numbers.PROTOCOL)
    for number, header in ((numbers.IPV4, IPV4_HEADER), (numbers.IPV6, IPV6_HEADER)):
        program.jump_equal(R1, number, header.named("steer"))
    program.jump("pass")
    program.label("refuse")
    program.load_map_value(R1, maps.refused)
    program.set(R2, 1)
    program.count(R1, 0, R2)
    parts.finish(program, "drop", numbers.DROP)
    parts.finish_returned(program)
    return program.code()


def _note_virtual(program: Assembler) -> None:
    """Have R8 say whether the next hop is the interface itself: it is for a virtual address."""
    program.set(R8, 0)
    parts.reach(program, numbers.ETHERNET_SIZE, "next hop")
    for size, part in ((WORD, 0), (HALF, 4)):
        program.load(size, R1, R2, parts.DESTINATION_MAC + part)
        program.load(size, R3, R2, parts.SOURCE_MAC + part)
        program.jump_different(R1, R3, "another hop")
    program.set(R8, 1)
    program.label("another hop")


def _pass_without_address(program: Assembler, header: IpHeader) -> None:
    """Let pass what has no address yet."""
    program.load(WORD, R1, R2, header.source)
    for part in range(4, header.size, 4):
        program.load(WORD, R3, R2, header.source + part)
        program.set_bits_of(R1, R3)
    program.jump_equal(R1, 0, "pass")
