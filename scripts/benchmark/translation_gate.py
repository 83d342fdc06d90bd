"""A namespace that translates, and the programs that lead packets there and back (ADR 0019).

A packet that leaves an exposed network crosses the gate, a veth pair, into the namespace, and
returns to leave by the same next hop, from the host's address. One that may belong to a translated
connection crosses it before the host sees it, and returns to the same interface: translated, or as
it was. So the host's own namespace needs no hooks of translation and tracking. IPv4 alone.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from typing import Final, NamedTuple

from overlay.kernel.bpf import numbers, syscall
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
    R10,
    WORD,
    Assembler,
)
from overlay.kernel.bpf.calls import look_up

BLOCK, BLOCK_SIZE = 0x4000, 0x4000  # ports to masquerade with: 16384 to 32767
RETURNED: Final = 0x72657475  # mark of what the namespace left as it was
ACCEPTED: Final = 0x6F760000  # mark of what it translated for a container
SIGNED: Final = 0x6F760001  # priority of the latter, inside
SIGN, NO_SIGN = 0x6F76, 0x0202  # the same as the first bytes of a source MAC
INWARD: Final = 0xFFFF  # tc_index of what comes from outside: no MAC of a next hop begins so
TCX_EGRESS: Final = 47  # BPF_TCX_EGRESS
_SK_LOOKUP_PROGRAM, _SK_LOOKUP = 30, 36
_PROG_LOAD, _PROG_ATTACH, _PROG_DETACH, _PROG_QUERY, _LINK_CREATE = 5, 8, 9, 16, 28
_PULL: Final = 39  # bpf_skb_pull_data
_TABLE_SIZE: Final = 65_536 // 8  # bytes of the bits of one protocol
_TTL, _SUM, _PROTOCOL, _SOURCE, _DESTINATION, _L4 = 22, 24, 23, 26, 30, 34
_DESTINATION_MAC, _SOURCE_MAC = 0, 6
_ADDRESS_AT, _PREFIX_AT = -8, -16  # on the stack
_REMOTE_AT: Final = -8


class Maps(NamedTuple):
    """What the programs look up, by descriptor."""

    own: int  # the host's addresses
    networks: int  # exposed ones, by prefix
    ports: int  # bits: ports to masquerade with and published ones, ids of echoes


def maps_of(own: str, network: tuple[str, int], published: int) -> Maps:
    """Return the maps of a host that publishes a port over TCP."""
    bits = bytearray(3 * _TABLE_SIZE)
    for start in range(0, len(bits), _TABLE_SIZE):
        first = start + BLOCK // 8
        bits[first : first + BLOCK_SIZE // 8] = bytes([0xFF]) * (BLOCK_SIZE // 8)
    bits[published // 8] |= 1 << published % 8
    maps = Maps(
        syscall.create_map(4, 4, 64, "own"),
        syscall.create_map(8, 4, 64, "networks", syscall.LPM_TRIE),
        syscall.create_map(4, len(bits), 1, "ports", syscall.ARRAY),
    )
    syscall.update(maps.own, socket.inet_aton(own), bytes(4))
    key = struct.pack("=I", network[1]) + socket.inet_aton(network[0])
    syscall.update(maps.networks, key, bytes(4))
    syscall.update(maps.ports, bytes(4), bytes(bits))
    return maps


# --- programs -------------------------------------------------------------------------------


def inward_program(maps: Maps, gate: int) -> bytes:
    """Return the program for what an uplink receives: what may be translated goes to the gate."""
    program = _program()
    program.load(WORD, R1, R6, numbers.MARK)
    program.set(R2, RETURNED)
    program.jump_same(R1, R2, "returned")
    program.set(R2, ACCEPTED)
    program.jump_same(R1, R2, "pass")
    for field, wanted in (
        (numbers.PACKET_TYPE, 0),
        (numbers.VLAN_PRESENT, 0),
        (numbers.PROTOCOL, numbers.IPV4),
    ):
        program.load(WORD, R1, R6, field)
        program.jump_unequal(R1, wanted, "pass")
    _reach(program, _L4, "own")
    program.load(WORD, R1, R2, _DESTINATION)
    program.store(WORD, R10, _ADDRESS_AT, R1)
    look_up(program, maps.own, _ADDRESS_AT)
    program.jump_unequal(R0, 0, "ports")
    _find_network(program, maps, "pass")
    program.jump("steer")
    program.label("ports")
    _reach(program, _L4 + 8, "ports")
    program.load(HALF, R1, R2, 20)
    program.jump_any_bit(R1, numbers.FRAGMENT, "steer")
    program.load(BYTE, R1, R2, 14)
    program.jump_unequal(R1, 0x45, "steer")  # with options
    _find_port(program, maps)
    _steer(program)
    program.set(R1, gate)
    program.set(R2, 0)
    program.call(numbers.REDIRECT_PEER)
    program.exit()
    program.label("returned")
    _write_mark(program, 0)
    return _passing(program)


def outward_program(maps: Maps, gate: int, inner_mac: bytes, own: str) -> bytes:
    """Return the program for what an uplink sends: packets of exposed networks go to the gate.

    So do the host's errors of ICMP, which may name a connection as the network knows it.
    """
    program = _program()
    program.load(WORD, R1, R6, numbers.MARK)
    program.set(R2, RETURNED)
    program.jump_same(R1, R2, "returned")
    program.load(WORD, R1, R6, numbers.PROTOCOL)
    program.jump_unequal(R1, numbers.IPV4, "pass")
    _reach(program, _L4, "source")
    program.load(WORD, R1, R2, _SOURCE)
    _set_unsigned(program, R3, socket.inet_aton(own))
    program.jump_different(R1, R3, "other")
    program.load(BYTE, R1, R2, _PROTOCOL)
    program.jump_unequal(R1, numbers.ICMP, "pass")
    _reach(program, _L4 + 8, "error")
    program.load(BYTE, R1, R2, _L4)
    for kind in (3, 11, 12):
        program.jump_equal(R1, kind, "steer")
    program.jump("pass")
    program.label("other")
    program.store(WORD, R10, _ADDRESS_AT, R1)
    _find_network(program, maps, "pass")
    _steer(program)
    _copy_mac(program, _DESTINATION_MAC, _SOURCE_MAC)  # the next hop's
    _write_mac(program, _DESTINATION_MAC, inner_mac)
    program.set(R1, gate)
    program.set(R2, 0)
    program.call(numbers.REDIRECT)
    program.exit()
    program.label("returned")
    _write_mark(program, 0)
    return _passing(program)


def returning_program(maps: Maps, uplink: int, mac: bytes) -> bytes:
    """Return the program for what comes back by the gate: out by the uplink, or into it."""
    program = _program()
    _reach(program, _L4, "destination")
    program.load(WORD, R1, R2, _DESTINATION)
    program.store(WORD, R10, _ADDRESS_AT, R1)
    look_up(program, maps.own, _ADDRESS_AT)
    program.jump_unequal(R0, 0, "as it was")
    _find_network(program, maps, "leave")
    _reach(program, 14, "sign")
    program.load(HALF, R1, R2, _SOURCE_MAC)
    program.jump_unequal(R1, SIGN, "as it was")
    _write_mark(program, ACCEPTED)
    program.jump("receive")
    program.label("as it was")
    _write_mark(program, RETURNED)
    program.label("receive")
    _reach(program, 14, "for the uplink")
    _write_mac(program, _DESTINATION_MAC, mac)
    program.set(R2, numbers.REDIRECT_INGRESS)
    program.jump("redirect")
    program.label("leave")
    _write_mark(program, RETURNED)
    _reach(program, 14, "send")
    _write_mac(program, _SOURCE_MAC, mac)
    program.set(R2, 0)
    program.label("redirect")
    program.set(R1, uplink)
    program.call(numbers.REDIRECT)
    program.exit()
    return _passing(program)


def entering_program(inner_mac: bytes) -> bytes:
    """Return the program for what enters the namespace: it keeps the next hop's MAC.

    Forwarding keeps a packet's mark and tc_index, fragmenting as well.
    """
    program = _program()
    _reach(program, 14, "mac")
    program.load(WORD, R1, R2, _DESTINATION_MAC)
    _set_unsigned(program, R3, inner_mac[:4])
    program.jump_different(R1, R3, "inward")
    program.load(HALF, R1, R2, _DESTINATION_MAC + 4)
    _set_unsigned(program, R3, inner_mac[4:] + bytes(2))
    program.jump_different(R1, R3, "inward")
    program.load(HALF, R1, R2, _SOURCE_MAC)
    program.store(WORD, R6, numbers.TC_INDEX, R1)
    program.load(WORD, R1, R2, _SOURCE_MAC + 2)
    program.store(WORD, R6, numbers.MARK, R1)
    program.jump("pass")
    program.label("inward")
    program.set(R1, INWARD)
    program.store(WORD, R6, numbers.TC_INDEX, R1)
    return _passing(program)


def exiting_program() -> bytes:
    """Return the program for what leaves the namespace: a next hop's MAC, or the rules' verdict."""
    program = _program()
    _reach(program, 14, "mac")
    program.load(WORD, R1, R6, numbers.TC_INDEX)
    program.jump_equal(R1, INWARD, "inward")
    program.store(HALF, R2, _DESTINATION_MAC, R1)
    program.load(WORD, R1, R6, numbers.MARK)
    program.store(WORD, R2, _DESTINATION_MAC + 2, R1)
    program.jump("pass")
    program.label("inward")
    program.load(WORD, R1, R6, numbers.PRIORITY)
    program.set(R3, NO_SIGN)
    program.set(R4, SIGNED)
    program.jump_different(R1, R4, "write")
    program.set(R3, SIGN)
    program.label("write")
    program.store(HALF, R2, _SOURCE_MAC, R3)
    return _passing(program)


def guard_program(members_fd: int, port: int) -> bytes:
    """Return the program that looks for sockets: those of the port are for members alone.

    Of struct bpf_sk_lookup (linux/bpf.h): protocol, remote address, own port, interface.
    """
    program = _program()
    program.load(WORD, R1, R6, 60)
    program.jump_unequal(R1, port, "pass")
    program.load(WORD, R1, R6, 12)
    program.jump_unequal(R1, numbers.UDP, "pass")
    program.load(WORD, R1, R6, 64)
    program.store(WORD, R10, _REMOTE_AT, R1)
    program.load(WORD, R1, R6, 16)
    program.store(WORD, R10, _REMOTE_AT + 4, R1)
    look_up(program, members_fd, _REMOTE_AT)
    program.jump_unequal(R0, 0, "pass")
    program.set(R0, 0)  # SK_DROP
    program.exit()
    program.label("pass")
    program.set(R0, 1)  # SK_PASS
    program.exit()
    return program.code()


def _program() -> Assembler:
    program = Assembler()
    program.move(R6, R1)
    return program


def _passing(program: Assembler) -> bytes:
    program.label("pass")
    program.set(R0, numbers.PASS)
    program.exit()
    return program.code()


def _reach(program: Assembler, size: int, name: str) -> None:
    """Have R2 be the frame, with as many bytes in one piece."""
    for attempt in ("first", "second"):
        program.load(WORD, R2, R6, numbers.DATA)
        program.load(WORD, R3, R6, numbers.DATA_END)
        program.move(R4, R2)
        program.add(R4, size)
        if attempt == "second":
            program.jump_greater(R4, R3, "pass")
            break
        program.jump_greater(R4, R3, f"pull {name}")
        program.jump(f"reached {name}")
        program.label(f"pull {name}")
        program.move(R1, R6)
        program.set(R2, size)
        program.call(_PULL)
        program.jump_unequal(R0, 0, "pass")
    program.label(f"reached {name}")


def _find_network(program: Assembler, maps: Maps, without: str) -> None:
    """Go on if the address on the stack is in an exposed network."""
    program.load(WORD, R1, R10, _ADDRESS_AT)
    program.store(WORD, R10, _PREFIX_AT + 4, R1)
    program.store_constant(WORD, R10, _PREFIX_AT, 32)
    look_up(program, maps.networks, _PREFIX_AT)
    program.jump_equal(R0, 0, without)


def _find_port(program: Assembler, maps: Maps) -> None:
    """Go on if the port's bit is set, for an error of ICMP, and for other protocols."""
    program.load(BYTE, R1, R2, _PROTOCOL)
    program.set(R4, 0)
    program.jump_equal(R1, numbers.TCP, "port")
    program.set(R4, _TABLE_SIZE)
    program.jump_equal(R1, numbers.UDP, "port")
    program.jump_unequal(R1, numbers.ICMP, "steer")
    program.load(BYTE, R1, R2, _L4)
    program.jump_equal(R1, 8, "pass")  # who asks for an echo asks the host
    program.jump_unequal(R1, 0, "steer")
    program.set(R4, 2 * _TABLE_SIZE)
    program.load(HALF, R5, R2, _L4 + 4)
    program.jump("look")
    program.label("port")
    program.load(HALF, R5, R2, _L4 + 2)
    program.label("look")
    program.to_big_endian(R5, 16)
    program.load_map_value(R1, maps.ports)
    program.add_register(R1, R4)
    program.move(R3, R5)
    program.shift_right(R3, 3)
    program.mask(R3, _TABLE_SIZE - 1)
    program.add_register(R1, R3)
    program.load(BYTE, R1, R1, 0)
    program.mask(R5, 7)
    program.shift_right_register(R1, R5)
    program.mask(R1, 1)
    program.jump_equal(R1, 0, "pass")


def _steer(program: Assembler) -> None:
    """Allow one hop more (RFC 1624), as the namespace takes one."""
    program.label("steer")
    _reach(program, _L4, "hops")
    program.load(BYTE, R1, R2, _TTL)
    program.jump_equal(R1, 255, "raised")
    program.add(R1, 1)
    program.store(BYTE, R2, _TTL, R1)
    program.load(HALF, R1, R2, _SUM)
    program.add(R1, 0xFFFE)
    program.move(R3, R1)
    program.shift_right(R3, 16)
    program.mask(R1, 0xFFFF)
    program.add_register(R1, R3)
    program.store(HALF, R2, _SUM, R1)
    program.label("raised")


def _write_mark(program: Assembler, mark: int) -> None:
    program.set(R1, mark)
    program.store(WORD, R6, numbers.MARK, R1)


def _copy_mac(program: Assembler, source: int, target: int) -> None:
    for size, offset in ((WORD, 0), (HALF, 4)):
        program.load(size, R1, R2, source + offset)
        program.store(size, R2, target + offset, R1)


def _write_mac(program: Assembler, offset: int, mac: bytes) -> None:
    first, last = struct.unpack("<iH", mac)
    for size, value, place in ((WORD, first, 0), (HALF, last, 4)):
        program.set(R1, value)
        program.store(size, R2, offset + place, R1)


def _set_unsigned(program: Assembler, register: int, raw: bytes) -> None:
    """Set a register to four bytes of a packet."""
    program.set(register, struct.unpack("<i", raw)[0])
    program.shift_left(register, 32)
    program.shift_right(register, 32)


# --- hooks that overlayd itself does not use ------------------------------------------------


def attach_leaving(code: bytes, index: int) -> None:
    """Run a program on what an interface sends."""
    program = syscall.load(code, "bench")
    _call(_PROG_ATTACH, "=6IQ", index, program, TCX_EGRESS, 0, 0, 0, 0)
    os.close(program)


def detach_leaving(index: int) -> None:
    """Remove all programs from what an interface sends."""
    ids = (ctypes.c_uint32 * 64)()
    where = ctypes.addressof(ids), len(ids)
    asked = syscall._buffer("=4IQIIQQQQ", index, TCX_EGRESS, 0, 0, *where, 0, 0, 0, 0, 0)  # noqa: SLF001
    syscall._call(_PROG_QUERY, asked)  # noqa: SLF001
    for number in ids[: struct.unpack_from("=I", asked, 24)[0]]:
        program = syscall.open_program(number)
        _call(_PROG_DETACH, "=6IQ", index, program, TCX_EGRESS, 0, 0, 0, 0)
        os.close(program)


def link_guard(members: list[tuple[int, str]], port: int, namespace: int) -> int:
    """Guard the port of a namespace; return a descriptor, with which the guard ends."""
    members_fd = syscall.create_map(8, 4, 1024, "members")
    for interface, address in members:
        key = struct.pack("=I", interface) + socket.inet_aton(address)
        syscall.update(members_fd, key, bytes(4))
    code = guard_program(members_fd, port)
    kept = ctypes.create_string_buffer(code, len(code))
    license_text = ctypes.create_string_buffer(syscall.LICENSE.encode())
    where = len(code) // 8, ctypes.addressof(kept), ctypes.addressof(license_text)
    layout, rest = "=IIQQIIQII16sII", (0, 0, 0, 0, 0, b"guard", 0, _SK_LOOKUP)
    program = _call(_PROG_LOAD, layout, _SK_LOOKUP_PROGRAM, *where, *rest)
    link = _call(_LINK_CREATE, "=4I", program, namespace, _SK_LOOKUP, 0)
    for descriptor in (program, members_fd):
        os.close(descriptor)
    return link


def _call(command: int, layout: str, *values: int | bytes) -> int:
    return syscall._call(command, syscall._buffer(layout, *values))  # noqa: SLF001
