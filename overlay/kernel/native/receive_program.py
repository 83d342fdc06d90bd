"""The program that takes members' frames out of their packets, on the underlay's interfaces.

It runs for every packet that the host receives there, and takes one only if it is a plain VXLAN
packet (RFC 7348) for this host, from a member by an interface where that member's packets may come,
with a VNI that has a shortcut, and with a unicast IPv4 or IPv6 packet inside. All others go on to
the filter of the VXLAN port and the VXLAN device, unchanged: fragments, packets with IP options or
extension headers, damaged ones, ARP, broadcast and multicast, tagged frames, and those whose mark
of congestion must be taken over (RFC 6040 section 4.2). So one place refuses, and this one never
does.

Owns: the layout of the maps' keys and values.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Final

from overlay.core.dataplane.underlay_filter import ArrivalPath
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
    R10,
    WORD,
    Assembler,
)
from overlay.kernel.bpf.calls import look_up
from overlay.kernel.bpf.remote.headers import KEEP_SEGMENT_SIZE, VNI_ONLY, OuterHeaders
from overlay.kernel.bpf.remote.maps import mapped, unmapped
from overlay.model import Ip, Vni

PATH_KEY: Final = struct.Struct("=I16s16s")  # interface, member's address, this host's
PATH_VALUE_SIZE: Final = 4
VNI_KEY_SIZE: Final = 4  # as in the packet
VNI_VALUE: Final = struct.Struct("=I")  # index of the shortcut's end in the host's namespace

_PLAIN_IPV4, _VERSION_6 = 0x45, 0x60
_NOW_IPV4, _NOW_IPV6 = 1 << 7, 1 << 8  # BPF_F_ADJ_ROOM_DECAP_L3_IPV4 and _IPV6

# The stack, from the frame pointer.
_VNI: Final = -8
_PATH: Final = -48


@dataclass(frozen=True, slots=True)
class _Outer(OuterHeaders):
    """The offsets of a packet's parts from the Ethernet header, for one outer IP version."""

    protocol: int
    length: int
    extra: int  # what the length field counts of the IP header
    source: int
    destination: int

    @property
    def loaded(self) -> int:
        """Return how much is loaded: up to the end of an IPv4 header inside."""
        return self.inner + 14 + 20

    @property
    def base(self) -> int:
        """Return where the packet is on the stack, with its IP header aligned to words."""
        room = self.loaded + (-(self.loaded - 14) & 3)
        return _PATH - room


_IPV4: Final = _Outer(20, 14 + 9, 14 + 2, 20, 14 + 12, 14 + 16)
_IPV6: Final = _Outer(40, 14 + 6, 14 + 4, 0, 14 + 8, 14 + 24)


def path_key(path: ArrivalPath, own: Ip) -> bytes:
    """Return the key that admits a member's packets to an address by an interface."""
    return PATH_KEY.pack(path.interface, mapped(path.member), mapped(own))


def path_of(key: bytes) -> tuple[ArrivalPath, Ip]:
    """Return the path in a key, and this host's address."""
    interface, member, own = PATH_KEY.unpack(key)
    return ArrivalPath(interface, unmapped(member)), unmapped(own)


def vni_key(vni: Vni) -> bytes:
    """Return the key of a VNI."""
    return (int(vni) << 8).to_bytes(VNI_KEY_SIZE, "big")


def vni_of(key: bytes) -> Vni:
    """Return the VNI in a key."""
    return Vni(int.from_bytes(key, "big") >> 8)


def receive_program(paths_fd: int, vnis_fd: int, port: int, *, mixed: bool) -> bytes:
    """Return the program for the ingress hook of an interface of the underlay.

    With `mixed`, the kernel can change a frame's protocol, so that the IP versions inside and
    outside may differ.
    """
    program = Assembler()
    program.move(R6, R1)
    program.load(WORD, R1, R6, numbers.PACKET_TYPE)
    program.jump_unequal(R1, 0, "pass")  # not for this host's MAC
    program.load(WORD, R1, R6, numbers.VLAN_PRESENT)
    program.jump_unequal(R1, 0, "pass")
    program.load(WORD, R1, R6, numbers.PROTOCOL)
    program.jump_equal(R1, numbers.IPV6, "ipv6")
    program.jump_unequal(R1, numbers.IPV4, "pass")
    for outer, name in ((_IPV4, "ipv4"), (_IPV6, "ipv6")):
        program.label(name)
        _refuse_others_early(program, outer, port, name)
        _load_packet(program, outer)
        _check_headers(program, outer, port)
        if outer is _IPV4:
            _check_sum(program, outer)
        _check_lengths(program, outer)
        _check_congestion(program, outer, name, mixed=mixed)
        _find_shortcut(program, outer, paths_fd, vnis_fd)
        _take(program, outer)
    program.label("pass")
    program.set(R0, numbers.PASS)
    program.exit()
    return program.code()


def _refuse_others_early(program: Assembler, outer: _Outer, port: int, name: str) -> None:
    """Leave what is no UDP to the port by looking at two fields, as nearly all packets are."""
    program.load(WORD, R2, R6, numbers.DATA)
    program.load(WORD, R3, R6, numbers.DATA_END)
    program.move(R4, R2)
    program.add(R4, outer.vxlan)
    program.jump_greater(R4, R3, f"load {name}")  # the headers are not in one piece
    program.load(BYTE, R1, R2, outer.protocol)
    program.jump_unequal(R1, numbers.UDP, "pass")
    program.load(HALF, R1, R2, outer.udp + 2)
    program.jump_unequal(R1, _swapped(port), "pass")
    program.label(f"load {name}")


def _load_packet(program: Assembler, outer: _Outer) -> None:
    program.move(R1, R6)
    program.set(R2, 0)
    program.move(R3, R10)
    program.add(R3, outer.base)
    program.set(R4, outer.loaded)
    program.call(numbers.LOAD_BYTES)
    program.jump_unequal(R0, 0, "pass")


def _check_headers(program: Assembler, outer: _Outer, port: int) -> None:
    """Go on with a plain VXLAN packet that has a unicast frame inside."""
    base = outer.base
    program.load(BYTE, R1, R10, base + 14)
    if outer is _IPV6:
        program.mask(R1, 0xF0)
        program.jump_unequal(R1, _VERSION_6, "pass")
    else:
        program.jump_unequal(R1, _PLAIN_IPV4, "pass")
        program.load(HALF, R1, R10, base + 14 + 6)
        program.jump_any_bit(R1, numbers.FRAGMENT, "pass")
    program.load(BYTE, R1, R10, base + outer.protocol)
    program.jump_unequal(R1, numbers.UDP, "pass")
    program.load(HALF, R1, R10, base + outer.udp + 2)
    program.jump_unequal(R1, _swapped(port), "pass")
    program.load(WORD, R1, R10, base + outer.vxlan)
    program.jump_unequal(R1, VNI_ONLY, "pass")
    program.load(BYTE, R1, R10, base + outer.vxlan + 7)
    program.jump_unequal(R1, 0, "pass")
    program.load(BYTE, R1, R10, base + outer.inner)
    program.jump_any_bit(R1, 1, "pass")  # multicast or broadcast


def _check_sum(program: Assembler, outer: _Outer) -> None:
    """Go on if the outer IPv4 header is undamaged (RFC 1071)."""
    program.load(WORD, R1, R10, outer.base + 14)
    for offset in range(4, 20, 4):
        program.load(WORD, R2, R10, outer.base + 14 + offset)
        program.add_register(R1, R2)
    for _ in range(3):
        program.move(R2, R1)
        program.shift_right(R2, 16)
        program.mask(R1, 0xFFFF)
        program.add_register(R1, R2)
    program.jump_unequal(R1, 0xFFFF, "pass")


def _check_lengths(program: Assembler, outer: _Outer) -> None:
    """Go on if IP, UDP and the frame agree on the packet's length."""
    program.load(WORD, R2, R6, numbers.LENGTH)
    for offset, before in (
        (outer.length, outer.udp - outer.extra),
        (outer.udp + 4, outer.udp),
    ):
        program.load(HALF, R1, R10, outer.base + offset)
        program.to_big_endian(R1, 16)
        program.add(R1, before)
        program.jump_different(R1, R2, "pass")


def _check_congestion(program: Assembler, outer: _Outer, name: str, *, mixed: bool) -> None:
    """Go on if the packet inside keeps its ECN field; R7 is then the flags for taking it out.

    It keeps it unless the outer one is 1 or 3, and another (RFC 6040, figure 4).
    """
    inner = outer.base + outer.inner + 14
    to_ipv4 = KEEP_SEGMENT_SIZE | (_NOW_IPV4 if outer is _IPV6 else 0)
    to_ipv6 = KEEP_SEGMENT_SIZE | (_NOW_IPV6 if outer is _IPV4 else 0)
    program.load(BYTE, R2, R10, outer.base + 15)
    program.load(BYTE, R3, R10, inner + 1)
    if outer is _IPV6:
        program.shift_right(R2, 4)
    program.mask(R2, 3)
    program.load(HALF, R1, R10, inner - 2)
    if mixed or outer is _IPV4:
        program.set(R7, to_ipv4)
        program.jump_equal(R1, numbers.IPV4, f"compare {name}")
    if mixed or outer is _IPV6:
        program.set(R7, to_ipv6)
        program.shift_right(R3, 4)
        program.jump_equal(R1, numbers.IPV6, f"compare {name}")
    program.jump("pass")
    program.label(f"compare {name}")
    program.mask(R3, 3)
    program.jump_same(R2, R3, f"same {name}")
    program.jump_any_bit(R2, 1, "pass")
    program.label(f"same {name}")


def _find_shortcut(program: Assembler, outer: _Outer, paths_fd: int, vnis_fd: int) -> None:
    """Go on if the packet may come this way; the shortcut is then at `_VNI`.

    The kernel itself removes a deleted interface from the map of VNIs: so no frame is lost there,
    also without an agent.
    """
    program.load(WORD, R1, R6, numbers.IFINDEX)
    program.store(WORD, R10, _PATH, R1)
    for where, offset in ((_PATH + 4, outer.source), (_PATH + 20, outer.destination)):
        if outer is _IPV4:
            program.store_constant(WORD, R10, where, 0)
            program.store_constant(WORD, R10, where + 4, 0)
            program.set(R1, -0x10000)  # 00 00 ff ff
            program.store(WORD, R10, where + 8, R1)
            program.load(WORD, R1, R10, outer.base + offset)
            program.store(WORD, R10, where + 12, R1)
        else:
            for part in range(0, 16, 4):
                program.load(WORD, R1, R10, outer.base + offset + part)
                program.store(WORD, R10, where + part, R1)
    look_up(program, paths_fd, _PATH)
    program.jump_equal(R0, 0, "pass")
    program.load(WORD, R1, R10, outer.base + outer.vxlan + 4)
    program.store(WORD, R10, _VNI, R1)
    look_up(program, vnis_fd, _VNI)
    program.jump_equal(R0, 0, "pass")
    program.load(WORD, R1, R0, 0)
    program.store(WORD, R10, _VNI, R1)


def _take(program: Assembler, outer: _Outer) -> None:
    """Remove what is around the frame, and send it by the shortcut."""
    program.set(R1, 0)
    program.store(WORD, R6, numbers.TC_INDEX, R1)  # no frame of this host's that came back
    program.move(R1, R6)
    program.set(R2, 14 - outer.inner - 14)
    program.set(R3, numbers.MAC_LAYER)
    program.move(R4, R7)
    program.call(numbers.ADJUST_ROOM)
    program.jump_unequal(R0, 0, "pass")  # and unchanged
    program.move(R1, R6)
    program.set(R2, 0)
    program.move(R3, R10)
    program.add(R3, outer.base + outer.inner)
    program.set(R4, 14)
    program.set(R5, 0)
    program.call(numbers.STORE_BYTES)
    program.load(WORD, R1, R10, _VNI)
    program.set(R2, 0)
    program.call(numbers.REDIRECT_PEER)
    program.exit()


def _swapped(number: int) -> int:
    """Return a port as a load of this machine sees it in a packet."""
    return int.from_bytes(number.to_bytes(2, "big"), "little")
