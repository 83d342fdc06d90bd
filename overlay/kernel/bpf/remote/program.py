"""The program that sends frames for remote containers past the VXLAN device.

It runs at the shortcut's end in the host's namespace, on what ports send there (`exit`). It
looks up the way to the VTEP as the kernel would for a packet that it forwards (bpf_fib_lookup),
puts the frame into a VXLAN packet (RFC 7348) and has it sent to the next hop (bpf_redirect_neigh):
so routes, their rules, path MTUs, neighbors and interfaces count as they are when the packet
leaves. A frame that has no such way goes back by the shortcut, and from there to the VXLAN device.

It may be used under the GNU General Public License version 2 as well as under the
project's license, as the kernel offers bpf_fib_lookup only to such programs.

The packets are as those of the VXLAN device, but that their UDP checksum is zero, they must not be
fragmented, and the ECN field is copied (RFC 6040 section 4.1, normal mode).
"""

from __future__ import annotations

from dataclasses import dataclass
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
    R5,
    R6,
    R7,
    R8,
    R9,
    R10,
    WORD,
    Assembler,
)
from overlay.kernel.bpf.calls import look_up
from overlay.kernel.bpf.remote.exit import CAME_BACK, CAME_BACK_JUDGED
from overlay.kernel.bpf.remote.headers import KEEP_SEGMENT_SIZE, VNI_ONLY, OuterHeaders
from overlay.kernel.bpf.remote.maps import (
    WIRE_CHECKED,
    WIRE_FRAME,
    WIRE_LOCAL,
    WIRE_PORT,
    WIRE_VNI,
    RemoteFds,
)

LICENSE: Final = "GPL"  # of `remote_program`, as loaded
_TTL: Final = 64
_MUST_NOT_FRAGMENT: Final = 0x0040  # as a load of this machine sees it
_LENGTH_MAX: Final = 65_499  # of a frame: the outer packet's length has 16 bits
_FOUND, _NOT_FORWARDED, _NO_NEIGHBOR = 0, 4, 7  # BPF_FIB_LKUP_RET_*
_UDP, _UNTOUCHED_CHECKSUM, _ETHERNET = 1 << 4, 1 << 5, 1 << 6  # BPF_F_ADJ_ROOM_*
_ENCAPSULATION: Final = KEEP_SEGMENT_SIZE | _UDP | _UNTOUCHED_CHECKSUM | _ETHERNET

# struct bpf_fib_lookup, and struct bpf_redir_neigh
_FIB_SIZE, _FIB_PROTOCOL, _FIB_SOURCE_PORT, _FIB_PORT, _FIB_LENGTH = 64, 1, 2, 4, 6
_FIB_INTERFACE, _FIB_SOURCE, _FIB_DESTINATION = 8, 16, 32
_HOP_SIZE: Final = 20
# The stack of `remote_program`, from the frame pointer.
_FIB: Final = -64
_HOP: Final = -88
_SEGMENT: Final = -96
_KEY: Final = -104
_INNER: Final = -120  # the frame's Ethernet header, and two bytes of the IP header
_HEAD: Final = -206  # what is put before the frame, with its IP header aligned to words


@dataclass(frozen=True, slots=True)
class _Outer(OuterHeaders):
    """The differences between the outer IP versions."""

    name: str
    family: int
    ethertype: int
    flag: int  # BPF_F_ADJ_ROOM_ENCAP_L3_*

    @property
    def whole(self) -> int:
        """Return the size of all headers, the frame's own Ethernet header included."""
        return self.inner + 14


_IPV4: Final = _Outer(20, "ipv4", 2, numbers.IPV4, 1 << 1)
_IPV6: Final = _Outer(40, "ipv6", 10, numbers.IPV6, 1 << 2)


def remote_program(fds: RemoteFds, segment: int, ports: tuple[int, int]) -> bytes:
    """Return the program for the ingress hook of a shortcut's end in the host's namespace.

    `ports` are the first UDP source port and the number of them, as for the VXLAN device.
    """
    program = Assembler()
    program.move(R6, R1)
    _load_inner(program)
    program.store_constant(WORD, R10, _SEGMENT, segment)
    look_up(program, fds.wires, _SEGMENT)
    program.jump_equal(R0, 0, "back")
    program.move(R7, R0)
    for offset, size in ((0, WORD), (4, HALF)):
        program.load(size, R1, R10, _INNER + offset)
        program.store(size, R10, _KEY + offset, R1)
    program.store_constant(HALF, R10, _KEY + 6, segment)
    look_up(program, fds.remotes, _KEY)
    program.jump_equal(R0, 0, "back")
    program.move(R8, R0)
    program.load(WORD, R1, R6, numbers.LENGTH)
    program.jump_above(R1, _LENGTH_MAX, "back")
    _choose_source_port(program, *ports)
    program.load(WORD, R1, R8, 0)
    program.jump_unequal(R1, 0, _IPV6.name)
    program.load(HALF, R1, R8, 10)
    program.jump_unequal(R1, 0xFFFF, _IPV6.name)
    for outer in (_IPV4, _IPV6):
        program.label(outer.name)
        _find_way(program, outer)
        _write_head(program, outer)
        _encapsulate(program, outer)
    program.label("back")
    _return(program)
    return program.code()


def _load_inner(program: Assembler) -> None:
    program.move(R1, R6)
    program.set(R2, 0)
    program.move(R3, R10)
    program.add(R3, _INNER)
    program.set(R4, 16)
    program.call(numbers.LOAD_BYTES)
    program.jump_unequal(R0, 0, "back")


def _choose_source_port(program: Assembler, first: int, count: int) -> None:
    """Put a port for the frame's flow into R9, as in a packet (RFC 7348 section 5)."""
    program.move(R1, R6)
    program.call(numbers.FLOW_HASH)
    program.move(R9, R0)
    program.move(R1, R9)
    program.shift_left(R1, 16)
    program.flip_bits_of(R9, R1)
    program.shift_left(R9, 32)
    program.shift_right(R9, 32)
    program.multiply(R9, count)
    program.shift_right(R9, 32)
    program.add(R9, first)
    program.to_big_endian(R9, 16)


def _find_way(program: Assembler, outer: _Outer) -> None:
    """Look up interface and next hop; a frame without any goes back."""
    for offset in range(0, _FIB_SIZE, 8):
        program.store_constant(DOUBLE, R10, _FIB + offset, 0)
    program.store_constant(BYTE, R10, _FIB, outer.family)
    program.store_constant(BYTE, R10, _FIB + _FIB_PROTOCOL, numbers.UDP)
    program.store(HALF, R10, _FIB + _FIB_SOURCE_PORT, R9)
    program.load(HALF, R1, R7, WIRE_PORT)
    program.store(HALF, R10, _FIB + _FIB_PORT, R1)
    # The longest packet; of a frame that will be segmented, as long as the overlay's MTU allows.
    program.load(HALF, R2, R7, WIRE_FRAME)
    program.load(WORD, R1, R6, numbers.SEGMENT_SIZE)
    program.jump_unequal(R1, 0, f"long {outer.name}")
    program.load(WORD, R2, R6, numbers.LENGTH)
    program.label(f"long {outer.name}")
    program.add(R2, outer.inner - 14)
    program.store(HALF, R10, _FIB + _FIB_LENGTH, R2)
    program.load(WORD, R1, R6, numbers.IFINDEX)
    program.store(WORD, R10, _FIB + _FIB_INTERFACE, R1)
    _copy_addresses(program, outer, _FIB + _FIB_SOURCE, _FIB + _FIB_DESTINATION)
    if outer is _IPV4:
        _require_own_source(program)
    _ask_for_route(program)
    program.jump_equal(R0, _FOUND, f"found {outer.name}")
    program.jump_unequal(R0, _NO_NEIGHBOR, "back")
    program.label(f"found {outer.name}")
    program.load(BYTE, R1, R10, _FIB)  # the next hop's
    program.store(WORD, R10, _HOP, R1)
    for offset in range(0, 16, 4):
        program.load(WORD, R1, R10, _FIB + _FIB_DESTINATION + offset)
        program.store(WORD, R10, _HOP + 4 + offset, R1)


def _require_own_source(program: Assembler) -> None:
    """Have a frame go back if the VTEP's address is not this host's now.

    The kernel sends no packet of its own from such an address in IPv4 (in IPv6 it does). It
    forwards none to an address of this host, and it is asked once in a tick, as asking costs as
    much as a seventh of the program.
    """
    program.call(numbers.JIFFIES)
    program.load(DOUBLE, R1, R7, WIRE_CHECKED)
    program.jump_same(R0, R1, "own source")
    program.load(WORD, R1, R7, WIRE_LOCAL + 12)
    program.store(WORD, R10, _FIB + _FIB_DESTINATION, R1)
    _ask_for_route(program)
    program.jump_unequal(R0, _NOT_FORWARDED, "back")
    program.load(WORD, R1, R8, 12)
    program.store(WORD, R10, _FIB + _FIB_DESTINATION, R1)
    program.call(numbers.JIFFIES)
    program.store(DOUBLE, R7, WIRE_CHECKED, R0)
    program.label("own source")


def _ask_for_route(program: Assembler) -> None:
    program.move(R1, R6)
    program.move(R2, R10)
    program.add(R2, _FIB)
    program.set(R3, _FIB_SIZE)
    program.set(R4, 0)
    program.call(numbers.FIB_LOOKUP)


def _copy_addresses(program: Assembler, outer: _Outer, source: int, destination: int) -> None:
    """Copy both VTEPs' addresses to places on the stack."""
    parts = (12,) if outer is _IPV4 else (0, 4, 8, 12)
    for base, offset, where in ((R7, WIRE_LOCAL, source), (R8, 0, destination)):
        for part in parts:
            program.load(WORD, R1, base, offset + part)
            program.store(WORD, R10, where + part - parts[0], R1)


def _write_head(program: Assembler, outer: _Outer) -> None:
    """Write all that comes before the packet in the frame."""
    for offset in range(0, 12, 2):
        program.store_constant(HALF, R10, _HEAD + offset, 0)  # the neighbor's MAC comes later
    program.store_constant(HALF, R10, _HEAD + 12, outer.ethertype)
    _load_congestion(program, outer)  # into R3
    if outer is _IPV4:
        _write_ipv4(program)
    else:
        program.shift_left(R3, 4)
        program.store_constant(BYTE, R10, _HEAD + 14, 0x60)
        program.store(BYTE, R10, _HEAD + 15, R3)
        program.store_constant(HALF, R10, _HEAD + 16, 0)
        _store_length(program, _HEAD + 18, 16)
        program.store_constant(BYTE, R10, _HEAD + 20, numbers.UDP)
        program.store_constant(BYTE, R10, _HEAD + 21, _TTL)
        _copy_addresses(program, outer, _HEAD + 22, _HEAD + 38)
    udp, vxlan, inner = (_HEAD + each for each in (outer.udp, outer.vxlan, outer.inner))
    program.store(HALF, R10, udp, R9)
    program.load(HALF, R1, R7, WIRE_PORT)
    program.store(HALF, R10, udp + 2, R1)
    _store_length(program, udp + 4, 16)
    program.store_constant(HALF, R10, udp + 6, 0)
    program.store_constant(WORD, R10, vxlan, VNI_ONLY)
    program.load(WORD, R1, R7, WIRE_VNI)
    program.store(WORD, R10, vxlan + 4, R1)
    for offset, size in ((0, WORD), (4, WORD), (8, WORD), (12, HALF)):
        program.load(size, R1, R10, _INNER + offset)
        program.store(size, R10, inner + offset, R1)


def _load_congestion(program: Assembler, outer: _Outer) -> None:
    program.load(BYTE, R3, R10, _INNER + 15)
    program.load(HALF, R1, R10, _INNER + 12)
    program.jump_unequal(R1, numbers.IPV6, f"congestion {outer.name}")
    program.shift_right(R3, 4)
    program.label(f"congestion {outer.name}")
    program.mask(R3, 3)


def _write_ipv4(program: Assembler) -> None:
    """Write the outer IPv4 header, with R3 as its ECN field."""
    ip = _HEAD + 14
    program.store_constant(BYTE, R10, ip, 0x45)
    program.store(BYTE, R10, ip + 1, R3)
    _store_length(program, ip + 2, 16 + 20)
    program.store_constant(HALF, R10, ip + 4, 0)
    program.store_constant(HALF, R10, ip + 6, _MUST_NOT_FRAGMENT)
    program.store_constant(BYTE, R10, ip + 8, _TTL)
    program.store_constant(BYTE, R10, ip + 9, numbers.UDP)
    program.store_constant(HALF, R10, ip + 10, 0)
    _copy_addresses(program, _IPV4, ip + 12, ip + 16)
    program.load(WORD, R1, R10, ip)
    for offset in range(4, 20, 4):
        program.load(WORD, R2, R10, ip + offset)
        program.add_register(R1, R2)
    for _ in range(3):
        program.move(R2, R1)
        program.shift_right(R2, 16)
        program.mask(R1, 0xFFFF)
        program.add_register(R1, R2)
    program.set(R2, 0xFFFF)
    program.subtract(R2, R1)
    program.store(HALF, R10, ip + 10, R2)


def _store_length(program: Assembler, where: int, extra: int) -> None:
    """Write the frame's length and some more, as in a packet."""
    program.load(WORD, R1, R6, numbers.LENGTH)
    program.add(R1, extra)
    program.to_big_endian(R1, 16)
    program.store(HALF, R10, where, R1)


def _encapsulate(program: Assembler, outer: _Outer) -> None:
    program.move(R1, R6)
    program.set(R2, outer.whole - 14)
    program.set(R3, numbers.MAC_LAYER)
    program.set(R4, 14)  # the size of the header that follows VXLAN's: BPF_F_ADJ_ROOM_ENCAP_L2
    program.shift_left(R4, 56)
    program.set_bits(R4, _ENCAPSULATION | outer.flag)
    program.call(numbers.ADJUST_ROOM)
    program.jump_unequal(R0, 0, "back")  # and unchanged
    program.move(R1, R6)
    program.set(R2, 0)
    program.move(R3, R10)
    program.add(R3, _HEAD)
    program.set(R4, outer.whole)
    program.set(R5, 0)
    program.call(numbers.STORE_BYTES)
    program.set(R1, 0)
    program.store(WORD, R6, numbers.MARK, R1)
    program.load(WORD, R1, R10, _FIB + _FIB_INTERFACE)
    program.move(R2, R10)
    program.add(R2, _HOP)
    program.set(R3, _HOP_SIZE)
    program.set(R4, 0)
    program.call(numbers.REDIRECT_NEIGH)
    program.exit()


def _return(program: Assembler) -> None:
    """Send the frame back into the sandbox."""
    program.load(WORD, R1, R6, numbers.MARK)
    program.set(R2, CAME_BACK)
    program.jump_unequal(R1, numbers.JUDGED, "marked")
    program.set(R2, CAME_BACK_JUDGED)
    program.label("marked")
    program.store(WORD, R6, numbers.TC_INDEX, R2)
    program.load(WORD, R1, R6, numbers.IFINDEX)
    program.set(R2, 0)
    program.call(numbers.REDIRECT)
    program.exit()
