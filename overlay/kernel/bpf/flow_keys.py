"""Read from a frame, in a program, which connection it belongs to.

A packet's key has addresses, ports, protocol and IP version; that of a connection is the same for
both directions: the lower address comes first. The "ports" of an ICMP echo are its identifier and
a constant, so that an answer has the request's key, but a request from the other side does not.

Always let through: ARP, neighbor discovery, reports of multicast listeners (IGMP, MLD), and DHCP
requests to all. Dropped, as their ports can't be found or trusted: tagged frames, what is not IP,
IPv6 with extension headers other than that of fragments, and fragments too short for the ports.

Owns: the layout of keys, the stack's part that holds them. R6 is the frame, R7 where a header
begins, R8 the protocol. Does not: know policies.
"""

from __future__ import annotations

import struct
from typing import Final

from overlay.kernel.bpf import numbers
from overlay.kernel.bpf.assembler import (
    BYTE,
    DOUBLE,
    HALF,
    R0,
    R1,
    R2,
    R3,
    R4,
    R6,
    R7,
    R8,
    R9,
    R10,
    WORD,
    Assembler,
)

FLOW_KEY: Final = struct.Struct("=16s16s2s2sBBH")  # addresses, ports, protocol, fragment, version
SOURCE, DESTINATION, SOURCE_PORT, DESTINATION_PORT = 0, 16, 32, 34  # offsets in it
KEY_PROTOCOL, KEY_FRAGMENT, KEY_VERSION = 36, 37, 38
VERSION_4, VERSION_6 = 4, 6

# The stack, from the frame pointer; what is above PACKET is of `programs`.
PACKET: Final = -128  # the packet's key, source first
_INNER: Final = -168  # that of the packet in an ICMP error
FLOW: Final = -208  # the key of the connection
_HEADER: Final = -248
_TRANSPORT: Final = -264
IS_SYN: Final = -268  # whether TCP opens a connection
IS_FIRST: Final = -272  # whether it is the first of a packet's fragments
_FRAGMENT_ID: Final = -276
STATE: Final = -280  # for `policy_programs`
FRAGMENT_KEY: Final = -320

ALLOWED, DENIED, LATER_FRAGMENT = "policy-allowed", "policy-denied", "policy-later"
_READ, _RELATED, _UNRELATED = "policy-read", "policy-related", "policy-unrelated"

_OFFSET, _MORE = 0xFF1F, 0x0020  # of IPv4 fragments
_OFFSET_6, _MORE_6 = 0xF8FF, 0x0100  # of IPv6 fragments (RFC 8200 section 4.5)
_HOP_BY_HOP, _ROUTING, _FRAGMENT_HEADER, _OPTIONS = 0, 43, 44, 60
_EXTENSIONS: Final = (_HOP_BY_HOP, _ROUTING, _FRAGMENT_HEADER, _OPTIONS, 51, 135, 139, 140)
_ECHO, _ECHO_REPLY, _ECHO_6, _ECHO_REPLY_6 = 8, 0, 128, 129
_ECHO_PORT: Final = 8
_ERRORS_4: Final = (3, 11, 12)  # unreachable, time exceeded, parameter problem
_ERROR_MAX_6: Final = 4
_DISCOVERY: Final = range(133, 138)  # RFC 4861
_LISTENERS: Final = (130, 131, 132, 143)  # MLD: RFC 2710, RFC 3810
_SYN, _SYN_OR_ACK = 0x02, 0x12
_TCP_SIZE: Final = 14  # up to the flags
_SHORT_SIZE: Final = 8


def read_packet(program: Assembler) -> None:
    """Write the packet's key to `PACKET` and go on; what has none is allowed or denied.

    A frame in a VLAN is judged like others: addresses are those of the whole network. With a second
    tag it is no IP packet.
    """
    program.store_constant(WORD, R10, IS_SYN, 0)
    program.store_constant(WORD, R10, IS_FIRST, 0)
    program.set(R7, numbers.ETHERNET_SIZE)
    program.load(WORD, R1, R6, numbers.PROTOCOL)
    program.jump_equal(R1, numbers.ARP, ALLOWED)
    program.jump_equal(R1, numbers.IPV6, "policy-ipv6")
    program.jump_unequal(R1, numbers.IPV4, DENIED)
    _read_ipv4(program, PACKET, DENIED)
    _note_fragment_ipv4(program)
    program.jump_equal(R8, numbers.IGMP, ALLOWED)
    program.jump_unequal(R8, numbers.ICMP, "policy-transport")
    _read_icmp(program, PACKET, (_ECHO, _ECHO_REPLY), DENIED)
    for kind in _ERRORS_4:
        program.jump_equal(R1, kind, "policy-error4")
    program.jump(_READ)
    program.label("policy-ipv6")
    _read_ipv6(program, PACKET, DENIED)
    _skip_headers(program)
    program.jump_unequal(R8, numbers.ICMPV6, "policy-transport")
    _read_icmp(program, PACKET, (_ECHO_6, _ECHO_REPLY_6), DENIED)
    for kind in (*_DISCOVERY, *_LISTENERS):
        program.jump_equal(R1, kind, ALLOWED)
    program.jump_above(R1, _ERROR_MAX_6, _READ)
    program.jump("policy-error6")
    program.label("policy-transport")
    _read_ports(program, PACKET, _READ, DENIED)
    program.jump(_READ)


def read_related(program: Assembler) -> None:
    """Write the key of the connection that an ICMP error is about; then comes `end_related`."""
    program.label("policy-error4")
    program.add(R7, _SHORT_SIZE)
    _read_ipv4(program, _INNER, _UNRELATED)
    program.jump_any_bit(R1, numbers.FRAGMENT, _UNRELATED)
    program.jump_unequal(R8, numbers.ICMP, "policy-inner")
    _read_icmp(program, _INNER, (_ECHO, _ECHO_REPLY), _UNRELATED)
    program.jump(_RELATED)
    program.label("policy-error6")
    program.add(R7, _SHORT_SIZE)
    _read_ipv6(program, _INNER, _UNRELATED)
    program.jump_unequal(R8, numbers.ICMPV6, "policy-inner")
    _read_icmp(program, _INNER, (_ECHO_6, _ECHO_REPLY_6), _UNRELATED)
    program.jump(_RELATED)
    program.label("policy-inner")
    _read_ports(program, _INNER, _RELATED, _UNRELATED, flags=False)
    program.label(_RELATED)
    _order(program, _INNER, "inner")


def end_related(program: Assembler) -> None:
    """Write the key of the packet's own connection, for all packets; R9: source comes second."""
    program.label(_UNRELATED)
    program.label(_READ)
    _order(program, PACKET, "own")


def write_fragment_key(program: Assembler) -> None:
    """Write the key that the fragments of a packet share to `FRAGMENT_KEY`."""
    for offset in range(0, SOURCE_PORT, 8):
        program.load(DOUBLE, R1, R10, PACKET + offset)
        program.store(DOUBLE, R10, FRAGMENT_KEY + offset, R1)
    program.load(WORD, R1, R10, _FRAGMENT_ID)
    program.store(WORD, R10, FRAGMENT_KEY + SOURCE_PORT, R1)
    program.load(WORD, R1, R10, PACKET + KEY_PROTOCOL)
    program.store(WORD, R10, FRAGMENT_KEY + KEY_PROTOCOL, R1)
    program.store_constant(BYTE, R10, FRAGMENT_KEY + KEY_FRAGMENT, 1)


def _read_ipv4(program: Assembler, key: int, otherwise: str) -> None:
    """Read an IPv4 header; R1 is then its flags and offset, R7 where its payload begins."""
    _load(program, _HEADER, 20, otherwise)
    program.load(BYTE, R1, R10, _HEADER)
    program.move(R2, R1)
    program.shift_right(R2, 4)
    program.jump_unequal(R2, 4, otherwise)
    program.mask(R1, 15)
    program.shift_left(R1, 2)
    program.add_register(R7, R1)
    for offset in range(0, SOURCE_PORT, 8):
        program.store_constant(DOUBLE, R10, key + offset, 0)
    for offset, header in ((SOURCE, 12), (DESTINATION, 16)):
        program.load(WORD, R1, R10, _HEADER + header)
        program.store(WORD, R10, key + offset, R1)
    program.load(BYTE, R8, R10, _HEADER + 9)
    _begin_key(program, key, VERSION_4)
    program.load(HALF, R1, R10, _HEADER + 6)


def _read_ipv6(program: Assembler, key: int, otherwise: str) -> None:
    """Read an IPv6 header."""
    _load(program, _HEADER, 40, otherwise)
    program.load(BYTE, R1, R10, _HEADER)
    program.shift_right(R1, 4)
    program.jump_unequal(R1, 6, otherwise)
    program.add(R7, 40)
    for offset in range(0, SOURCE_PORT, 8):
        program.load(DOUBLE, R1, R10, _HEADER + 8 + offset)
        program.store(DOUBLE, R10, key + offset, R1)
    program.load(BYTE, R8, R10, _HEADER + 6)
    _begin_key(program, key, VERSION_6)


def _begin_key(program: Assembler, key: int, version: int) -> None:
    program.store_constant(WORD, R10, key + SOURCE_PORT, 0)
    program.store(BYTE, R10, key + KEY_PROTOCOL, R8)
    program.store_constant(BYTE, R10, key + KEY_FRAGMENT, 0)
    program.store_constant(HALF, R10, key + KEY_VERSION, version)


def _note_fragment_ipv4(program: Assembler) -> None:
    program.load(HALF, R2, R10, _HEADER + 4)
    program.store(WORD, R10, _FRAGMENT_ID, R2)
    program.jump_any_bit(R1, _OFFSET, LATER_FRAGMENT)
    program.mask(R1, _MORE)
    program.store(WORD, R10, IS_FIRST, R1)


def _skip_headers(program: Assembler) -> None:
    """Go behind the header of an IPv6 fragment; see to MLD, which has a hop-by-hop header."""
    program.jump_equal(R8, _FRAGMENT_HEADER, "policy-fragment6")
    program.jump_equal(R8, _HOP_BY_HOP, "policy-hops")
    program.jump("policy-upper")
    program.label("policy-fragment6")
    _load(program, _TRANSPORT, _SHORT_SIZE, DENIED)
    program.add(R7, _SHORT_SIZE)
    program.load(WORD, R1, R10, _TRANSPORT + 4)
    program.store(WORD, R10, _FRAGMENT_ID, R1)
    program.load(BYTE, R8, R10, _TRANSPORT)
    program.store(BYTE, R10, PACKET + KEY_PROTOCOL, R8)
    program.load(HALF, R1, R10, _TRANSPORT + 2)
    program.jump_any_bit(R1, _OFFSET_6, LATER_FRAGMENT)
    program.mask(R1, _MORE_6)
    program.store(WORD, R10, IS_FIRST, R1)
    program.jump("policy-upper")
    program.label("policy-hops")
    _load(program, _TRANSPORT, 10, DENIED)  # 8 of the options, then type and code
    program.load(HALF, R1, R10, _TRANSPORT)
    program.jump_unequal(R1, numbers.ICMPV6, DENIED)  # and no more than 8 of them
    program.load(BYTE, R1, R10, _TRANSPORT + 8)
    for kind in _LISTENERS:
        program.jump_equal(R1, kind, ALLOWED)
    program.jump(DENIED)
    program.label("policy-upper")
    for header in _EXTENSIONS:
        program.jump_equal(R8, header, DENIED)


def _read_icmp(program: Assembler, key: int, echo: tuple[int, int], otherwise: str) -> None:
    """Write what an ICMP message is about in place of ports; R1 is its type."""
    request, reply = echo
    name = f"{key}-{request}"
    _load(program, _TRANSPORT, _SHORT_SIZE, otherwise)
    program.load(HALF, R2, R10, _TRANSPORT + 4)
    program.load(BYTE, R1, R10, _TRANSPORT)
    program.jump_equal(R1, request, f"policy-echo{name}")
    program.jump_equal(R1, reply, f"policy-reply{name}")
    program.store(HALF, R10, key + SOURCE_PORT, R1)
    program.jump(f"policy-icmp{name}")
    program.label(f"policy-echo{name}")
    program.store(HALF, R10, key + SOURCE_PORT, R2)
    program.store_constant(HALF, R10, key + DESTINATION_PORT, _ECHO_PORT)
    program.jump(f"policy-icmp{name}")
    program.label(f"policy-reply{name}")
    program.store_constant(HALF, R10, key + SOURCE_PORT, _ECHO_PORT)
    program.store(HALF, R10, key + DESTINATION_PORT, R2)
    program.label(f"policy-icmp{name}")


def _read_ports(
    program: Assembler, key: int, done: str, otherwise: str, *, flags: bool = True
) -> None:
    """Write TCP's and UDP's ports, and whether TCP opens a connection; go on with the latter."""
    program.jump_equal(R8, numbers.TCP, f"policy-tcp{key}")
    program.jump_unequal(R8, numbers.UDP, done)
    _load(program, _TRANSPORT, _SHORT_SIZE, otherwise)
    program.load(WORD, R1, R10, _TRANSPORT)
    program.store(WORD, R10, key + SOURCE_PORT, R1)
    if flags:
        _let_dhcp_requests_through(program, key, done)
    program.jump(done)
    program.label(f"policy-tcp{key}")
    # An ICMP error need not hold more than 8 bytes of what it is about (RFC 792).
    _load(program, _TRANSPORT, _TCP_SIZE if flags else _SHORT_SIZE, otherwise)
    program.load(WORD, R1, R10, _TRANSPORT)
    program.store(WORD, R10, key + SOURCE_PORT, R1)
    if flags:
        program.load(BYTE, R1, R10, _TRANSPORT + 13)
        program.mask(R1, _SYN_OR_ACK)
        program.jump_unequal(R1, _SYN, done)
        program.store_constant(WORD, R10, IS_SYN, 1)


def _let_dhcp_requests_through(program: Assembler, key: int, otherwise: str) -> None:
    program.load(HALF, R1, R10, key + DESTINATION_PORT)
    program.jump_equal(R1, numbers.DHCPV6_SERVER, "policy-dhcpv6")
    program.jump_unequal(R1, numbers.DHCP_SERVER, otherwise)
    program.load(WORD, R1, R10, key + DESTINATION)
    program.add(R1, 1)
    program.shift_right(R1, 32)
    program.jump_equal(R1, 1, ALLOWED)  # to 255.255.255.255
    program.jump(otherwise)
    program.label("policy-dhcpv6")
    program.load(WORD, R1, R10, key + DESTINATION)
    program.jump_unequal(R1, 0x02FF, otherwise)  # to ff02::1:2
    program.load(WORD, R1, R10, key + DESTINATION + 12)
    program.jump_equal(R1, 0x02000100, ALLOWED)


def _order(program: Assembler, key: int, name: str) -> None:
    """Copy a packet's key to `FLOW`, lower address first; R9 is 1 if they change places."""
    for offset in (0, 8):
        program.load(DOUBLE, R1, R10, key + SOURCE + offset)
        program.load(DOUBLE, R2, R10, key + DESTINATION + offset)
        program.jump_greater(R1, R2, f"policy-changed-{name}")
        program.jump_greater(R2, R1, f"policy-kept-{name}")
    program.label(f"policy-kept-{name}")
    program.set(R9, 0)
    _copy(program, key, (SOURCE, DESTINATION, SOURCE_PORT, DESTINATION_PORT))
    program.jump(f"policy-ordered-{name}")
    program.label(f"policy-changed-{name}")
    program.set(R9, 1)
    _copy(program, key, (DESTINATION, SOURCE, DESTINATION_PORT, SOURCE_PORT))
    program.label(f"policy-ordered-{name}")
    program.load(WORD, R1, R10, key + KEY_PROTOCOL)
    program.store(WORD, R10, FLOW + KEY_PROTOCOL, R1)


def _copy(program: Assembler, key: int, fields: tuple[int, int, int, int]) -> None:
    """Copy the fields, in that order, to where addresses and ports are."""
    first, second, first_port, second_port = fields
    for target, origin in ((SOURCE, first), (DESTINATION, second)):
        for offset in (0, 8):
            program.load(DOUBLE, R1, R10, key + origin + offset)
            program.store(DOUBLE, R10, FLOW + target + offset, R1)
    for target, origin in ((SOURCE_PORT, first_port), (DESTINATION_PORT, second_port)):
        program.load(HALF, R1, R10, key + origin)
        program.store(HALF, R10, FLOW + target, R1)


def _load(program: Assembler, to: int, size: int, otherwise: str) -> None:
    """Copy a frame's bytes from R7 on to the stack; shorter frames go elsewhere."""
    program.move(R1, R6)
    program.move(R2, R7)
    program.move(R3, R10)
    program.add(R3, to)
    program.set(R4, size)
    program.call(numbers.LOAD_BYTES)
    program.jump_unequal(R0, 0, otherwise)
