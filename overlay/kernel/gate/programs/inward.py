"""The programs for what the host's interfaces receive: what may be translated goes to the gate.

They run for every packet of the host. One that is not for a port of the gate's, and can't be for an
exposed network, passes after two loads from the tables of bits, without a look-up.
"""

from __future__ import annotations

from typing import Final

from overlay.kernel.bpf import numbers
from overlay.kernel.bpf.assembler import (
    BYTE,
    HALF,
    R0,
    R1,
    R2,
    R4,
    R5,
    R6,
    R7,
    R10,
    WORD,
    Assembler,
)
from overlay.kernel.bpf.calls import look_up
from overlay.kernel.gate.maps import (
    ECHO_IDS,
    LOOPBACK,
    OWN,
    TCP_PORTS,
    TCP_PUBLISHED,
    UDP_PORTS,
    UDP_PUBLISHED,
    GateMaps,
)
from overlay.kernel.gate.programs import parts
from overlay.kernel.gate.programs.parts import HEADERS, IPV4_HEADER, IpHeader

_FRAGMENT_IPV6: Final = 44  # RFC 8200 section 4.5
_ECHO: Final = {4: (8, 0), 6: (128, 129)}  # types of requests and replies, by IP version
_END: Final = -4  # on the stack


def inward_program(maps: GateMaps) -> bytes:
    """Return the program for what interfaces receive that lead outside or to a network."""
    program = _begin()
    for header in HEADERS:
        program.label(header.named("version"))
        _look_at_headers(program, header, TCP_PORTS, UDP_PORTS)
        program.jump_unequal(R1, header.protocol_of_icmp, header.named("own"))
        _look_at_icmp(program, header)
        program.label(header.named("port"))
        program.load(HALF, R5, R2, header.end + 2)
        program.label(header.named("bit"))
        parts.require_bit(program, maps, header.named("network"))
        program.label(header.named("own"))
        parts.look_own_up(program, maps, header, header.destination)
        program.jump_equal(R0, 0, header.named("not own"))
        program.load(WORD, R1, R0, 0)
        program.jump_equal(R1, OWN, header.named("steer"))
        program.jump("pass")
        program.label(header.named("not own"))
        parts.reach(program, header.end, header.named("again"))
        program.label(header.named("network"))
        parts.require_range_bit(program, maps, header, header.destination, "pass")
        parts.look_range_up(program, maps, header, header.destination)
        program.jump_equal(R0, 0, "pass")
        program.load(WORD, R1, R6, numbers.IFINDEX)
        program.load(WORD, R2, R0, 0)
        program.jump_same(R1, R2, "pass")  # within the network
        _steer(program, maps, header)
    parts.finish_returned(program)
    return program.code()


def loopback_program(maps: GateMaps) -> bytes:
    """Return the program for what the loopback receives: published ports alone."""
    program = _begin()
    for header in HEADERS:
        program.label(header.named("version"))
        _look_at_headers(program, header, TCP_PUBLISHED, UDP_PUBLISHED)
        if header is not IPV4_HEADER:
            program.jump_equal(R1, _FRAGMENT_IPV6, header.named("own"))
        program.jump("pass")
        program.label(header.named("port"))
        program.load(HALF, R5, R2, header.end + 2)
        parts.require_bit(program, maps, "pass")
        program.label(header.named("own"))
        parts.look_own_up(program, maps, header, header.destination)
        program.jump_equal(R0, 0, "pass")
        program.load(WORD, R1, R0, 0)
        program.jump_unequal(R1, LOOPBACK, header.named("steer"))
        parts.reach(program, header.end, header.named("loopback"))
        parts.compare_bytes(program, header.source, header.loopback, "pass")
        for place, ip in zip(
            (header.source, header.destination), header.loopback_inside, strict=True
        ):
            parts.write_constant(program, place, ip)
        _steer(program, maps, header, cut=header is IPV4_HEADER)
    parts.finish_returned(program)
    return program.code()


def _begin() -> Assembler:
    program = parts.begin()
    parts.return_marked(program, accepts=True)
    program.load(WORD, R1, R6, numbers.PACKET_TYPE)
    program.jump_unequal(R1, 0, "pass")  # broadcast, multicast, or not for this host's MAC
    program.load(WORD, R1, R6, numbers.VLAN_PRESENT)
    program.jump_unequal(R1, 0, "pass")
    parts.branch_by_version(program, "pass")
    return program


def _look_at_headers(program: Assembler, header: IpHeader, tcp: int, udp: int) -> None:
    """Jump to the port of TCP and UDP, R4 being their table; go on with another protocol in R1.

    Of what has no port at its place only the address is looked at.
    """
    parts.reach(program, header.end, header.named("header"))
    if header is IPV4_HEADER:
        program.load(HALF, R1, R2, parts.IPV4_FRAGMENT)
        program.jump_any_bit(R1, numbers.FRAGMENT, header.named("own"))
        program.load(BYTE, R1, R2, parts.IPV4_START)
        program.jump_unequal(R1, parts.PLAIN_IPV4, header.named("own"))  # it has options
    parts.reach(program, header.end + 8, header.named("ports"))
    program.load(BYTE, R1, R2, header.protocol)
    for number, start in ((numbers.TCP, tcp), (numbers.UDP, udp)):
        program.set(R4, start)
        program.jump_equal(R1, number, header.named("port"))


def _look_at_icmp(program: Assembler, header: IpHeader) -> None:
    """Look at the address of an error, at the id of an echo's reply; who asks asks the host."""
    request, reply = _ECHO[header.version]
    program.load(BYTE, R1, R2, header.end)
    program.jump_equal(R1, request, header.named("network"))
    if header is not IPV4_HEADER:
        program.jump_above(R1, reply, "pass")  # of neighbors, routers and groups
    program.jump_unequal(R1, reply, header.named("own"))
    program.set(R4, ECHO_IDS)
    program.load(HALF, R5, R2, header.end + 4)
    program.jump(header.named("bit"))


def _steer(program: Assembler, maps: GateMaps, header: IpHeader, *, cut: bool = False) -> None:
    """Send the frame to the namespace, if the interface has a pair."""
    program.label(header.named("steer"))
    program.load(WORD, R1, R6, numbers.IFINDEX)
    program.store(WORD, R10, _END, R1)
    look_up(program, maps.ends, _END)
    program.jump_equal(R0, 0, "pass")
    program.load(WORD, R7, R0, 0)
    parts.reach(program, header.end, header.named("hops"))
    parts.allow_one_hop_more(program, header)
    if cut:
        parts.allow_fragments(program)
    program.move(R1, R7)
    program.set(R2, 0)
    program.call(numbers.REDIRECT_PEER)
    program.exit()
