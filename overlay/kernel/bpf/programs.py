"""The eBPF programs of the fast path.

Frames that they do not redirect go to the bridge. `vtep_program` runs on frames received by the
VTEP: one for the MAC of a local container goes straight into that container (bpf_redirect_peer).
`port_program` runs on frames that a container sends: one for a local container goes straight there;
other unicast goes straight to the VTEP, whose FDB holds the destination. Only plain IPv4 and IPv6
packets from the port's own MAC and addresses are redirected. ARP, neighbor discovery, fragments, IP
options, VLAN tags, DHCP server replies and spoofed frames go to the bridge, where port security
checks them.

`bridge_program` runs on frames that a bridge takes for its own host, after port security: a
container's announcement of an address (gratuitous ARP, unsolicited neighbor advertisement) is sent
to the other hosts, too. A bridge itself floods none into the VXLAN (net/bridge/br_arp_nd_proxy.c),
so containers there would keep a moved address' former MAC until it expires. Only frames that
`port_program` has marked are sent: what came from another host never goes out again.

Owns: the layout of the maps' keys and values.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

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
    R10,
    WORD,
    Assembler,
)
from overlay.kernel.bpf.policy_layout import SAVED, Maps
from overlay.kernel.bpf.policy_programs import judge
from overlay.kernel.bpf.remote.exit import PortLayout, send_back, send_to_remote
from overlay.kernel.bpf.remote.maps import RemoteFds
from overlay.model import Ip, Mac

TARGET_KEY: Final = struct.Struct("=6sH")  # destination MAC, segment
TARGET_VALUE: Final = struct.Struct("=II")  # interface index, action
SOURCE_KEY: Final = struct.Struct("=I6sxx16s")  # port's index, source MAC, source address
SOURCE_VALUE_SIZE: Final = 4
TO_BRIDGE, TO_CONTAINER, TO_DEVICE = 0, 1, 2

# More marks within the sandbox; no frame keeps one when it leaves, or brings one with it.
FROM_CONTAINER, ROUTED = 0x6F7663, 0x6F7672
_NO_OPTIONS: Final = 0x45
_ADVERTISEMENT, _SOLICITED = 136, 0x40  # RFC 4861 section 4.4: type and flag

# The stack, from the frame pointer: the packet's first 38 bytes so that the IP header is aligned.
_TARGET: Final = -8
_PORT: Final = -16
_PACKET: Final = -58
_IP_HEADER: Final = _PACKET + 14
_SOURCE: Final = -88
_HEAD_SIZE: Final = 38  # Ethernet, IPv4 without options, the ports
_ARP_SIZE: Final = 42  # Ethernet, ARP of IPv4 (RFC 826)
_ARP_SENDER, _ARP_TARGET = 28, 38  # the addresses, in the frame


def source_key(port_index: int, mac: Mac, ip: Ip) -> bytes:
    """Return the key that allows a port to send from a MAC and an address."""
    return SOURCE_KEY.pack(port_index, mac, ip)


def send_program(index: int) -> bytes:
    """Return a program that sends its frame out of an interface.

    Not part of the fast path; `kernel.sandbox.gratuitous_arp` runs it to send announcements.
    """
    program = Assembler()
    program.set(R2, index)
    program.set(R3, 0)
    program.call(numbers.CLONE_REDIRECT)
    program.set(R0, 0)
    program.exit()
    return program.code()


def vtep_program(targets_fd: int, segment: int, maps: Maps | None = None) -> bytes:
    """Return the program for the ingress hook of a segment's VTEP, with policies if it has any."""
    program = Assembler()
    program.move(R6, R1)
    _send_to_container(program, targets_fd, segment, maps)
    _pass(program)
    return program.code()


def shortcut_program(targets_fd: int, segment: int, maps: Maps | None = None) -> bytes:
    """Return the program for the ingress hook of a segment's shortcut.

    It does as the VTEP's program does, and has the VTEP receive what that leaves to the bridge. The
    VTEP sends what a container here has sent, and what could not leave by the shortcut. Tagged
    frames, broadcast and multicast are dropped: they can only be the host's own, sent by its other
    programs on all interfaces.
    """
    program = Assembler()
    program.move(R6, R1)
    send_back(program)
    _send_to_container(program, targets_fd, segment, maps, strange="drop")
    program.label("pass")
    program.set(R7, numbers.REDIRECT_INGRESS)
    program.jump("to device")
    program.label("came")
    program.set(R1, 0)
    program.store(WORD, R6, numbers.TC_INDEX, R1)
    program.set(R7, 0)
    program.label("to device")
    program.store_constant(HALF, R10, _TARGET + 6, segment)
    _find_vtep(program, targets_fd, "drop")
    program.load(WORD, R1, R0, 0)
    program.move(R2, R7)
    program.call(numbers.REDIRECT)
    program.exit()
    program.label("drop")
    program.set(R0, numbers.DROP)
    program.exit()
    return program.code()


def _send_to_container(
    program: Assembler, targets_fd: int, segment: int, maps: Maps | None, *, strange: str = "pass"
) -> None:
    """Send a frame for a local container there, if policies allow it; else go to `pass`.

    Go to `strange` with one that is tagged or for many.
    """
    program.load(WORD, R1, R6, numbers.VLAN_PRESENT)
    program.jump_unequal(R1, 0, strange)
    _load_packet(program, 14)
    _refuse_multicast(program, strange)
    _refuse_other_types(program)
    _find_target(program, targets_fd, segment)
    program.jump_equal(R0, 0, "pass")
    program.load(WORD, R1, R0, 0)
    program.load(WORD, R2, R0, 4)
    program.jump_unequal(R2, TO_CONTAINER, "pass")
    if maps is not None:
        program.store(WORD, R10, SAVED, R1)
        judge(program, maps)
        program.load(WORD, R1, R10, SAVED)
    program.set(R2, 0)
    program.call(numbers.REDIRECT_PEER)
    program.exit()


class PortMaps(NamedTuple):
    """Descriptors of the maps that the programs of ports use."""

    targets: int
    sources: int
    remote: RemoteFds


def port_program(tables: PortMaps, segment: int, maps: Maps | None = None) -> bytes:
    """Return the program for the ingress hook of a segment's container ports.

    Policies judge what comes from the port's own MAC and address; other frames are judged where
    they leave the bridge, after port security.
    """
    program = Assembler()
    program.move(R6, R1)
    program.load(WORD, R1, R6, numbers.VLAN_PRESENT)
    program.jump_unequal(R1, 0, "pass")
    _load_packet(program, _HEAD_SIZE)
    _refuse_multicast(program, "multicast")
    _begin_source_key(program)
    program.load(HALF, R1, R10, _PACKET + 12)
    program.jump_equal(R1, numbers.IPV6, "ipv6")
    program.jump_unequal(R1, numbers.IPV4, "pass")
    _read_ipv4_source(program)
    program.label("ipv6")
    _read_ipv6_source(program)
    program.label("checked")
    _check_source(program, tables.sources)
    if maps is not None:
        judge(program, maps)
    _find_target(program, tables.targets, segment)
    program.jump_equal(R0, 0, "elsewhere")
    program.load(WORD, R1, R0, 0)
    program.load(WORD, R2, R0, 4)
    program.jump_unequal(R2, TO_CONTAINER, "pass")
    program.load(WORD, R3, R6, numbers.IFINDEX)
    program.jump_same(R1, R3, "pass")  # to its own port: the bridge drops the frame
    program.set(R2, 0)
    program.call(numbers.REDIRECT_PEER)
    program.exit()
    program.label("elsewhere")
    is_judged = maps is not None
    layout = PortLayout(_TARGET, _PORT, _PACKET)
    send_to_remote(program, tables.remote, segment, layout, is_judged=is_judged)
    _send_elsewhere(program, tables.targets, is_judged=is_judged)
    program.label("multicast")
    program.set(R1, FROM_CONTAINER)
    program.store(WORD, R6, numbers.MARK, R1)
    _pass(program)
    return program.code()


def bridge_program(targets_fd: int, segment: int, maps: Maps | None = None) -> bytes:
    """Return the program for the ingress hook of a segment's bridge."""
    program = Assembler()
    program.move(R6, R1)
    if maps is not None:
        judge(program, maps)
    program.load(WORD, R1, R6, numbers.MARK)
    program.jump_unequal(R1, FROM_CONTAINER, "pass")
    _load_packet(program, _ARP_SIZE)
    program.load(HALF, R1, R10, _PACKET + 12)
    program.jump_equal(R1, numbers.IPV6, "ipv6")
    program.jump_unequal(R1, numbers.ARP, "pass")
    for offset in (0, 2):
        program.load(HALF, R1, R10, _PACKET + _ARP_SENDER + offset)
        program.load(HALF, R2, R10, _PACKET + _ARP_TARGET + offset)
        program.jump_same(R1, R2, f"same{offset}")
        program.jump("pass")
        program.label(f"same{offset}")
    program.jump("announcement")
    program.label("ipv6")
    _read_advertisement(program)
    program.label("announcement")
    program.store_constant(HALF, R10, _TARGET + 6, segment)
    _find_vtep(program, targets_fd)
    program.load(WORD, R2, R0, 0)
    program.move(R1, R6)
    program.set(R3, 0)
    program.call(numbers.CLONE_REDIRECT)
    _pass(program)
    return program.code()


def router_program() -> bytes:
    """Return the program for what enters by a router's link, in a network with policies.

    It marks a packet as routed: the host that it leaves for judges it, where its answers pass.
    """
    program = Assembler()
    program.move(R6, R1)
    program.set(R1, ROUTED)
    program.store(WORD, R6, numbers.MARK, R1)
    program.set(R0, numbers.PASS)
    program.exit()
    return program.code()


def _read_advertisement(program: Assembler) -> None:
    """Go on with an unsolicited neighbor advertisement; other packets go to the host alone."""
    program.load(BYTE, R1, R10, _IP_HEADER + 6)
    program.jump_unequal(R1, numbers.ICMPV6, "pass")
    _load_behind_ipv6(program, 8)
    program.load(BYTE, R1, R10, _PORT)
    program.jump_unequal(R1, _ADVERTISEMENT, "pass")
    program.load(BYTE, R1, R10, _PORT + 4)
    program.jump_any_bit(R1, _SOLICITED, "pass")


def _load_packet(program: Assembler, size: int) -> None:
    """Copy the frame's first bytes to the stack.

    Shorter frames go to the bridge.
    """
    program.move(R1, R6)
    program.set(R2, 0)
    program.move(R3, R10)
    program.add(R3, _PACKET)
    program.set(R4, size)
    program.call(numbers.LOAD_BYTES)
    program.jump_unequal(R0, 0, "pass")


def _load_behind_ipv6(program: Assembler, size: int) -> None:
    """Copy the first bytes behind an IPv6 header to `_PORT` on the stack."""
    program.move(R1, R6)
    program.set(R2, 14 + 40)
    program.move(R3, R10)
    program.add(R3, _PORT)
    program.set(R4, size)
    program.call(numbers.LOAD_BYTES)
    program.jump_unequal(R0, 0, "pass")


def _refuse_multicast(program: Assembler, label: str) -> None:
    """Go to a label with a multicast or broadcast frame."""
    program.load(BYTE, R1, R10, _PACKET)
    program.jump_any_bit(R1, 1, label)


def _refuse_other_types(program: Assembler) -> None:
    """Leave what is neither IP nor ARP to the bridge, whose tables know more types."""
    program.load(HALF, R1, R10, _PACKET + 12)
    for known in (numbers.IPV4, numbers.IPV6, numbers.ARP):
        program.jump_equal(R1, known, "known-type")
    program.jump("pass")
    program.label("known-type")


def _begin_source_key(program: Assembler) -> None:
    """Write port index and source MAC to the key; the address is still zero."""
    program.load(WORD, R1, R6, numbers.IFINDEX)
    program.store(WORD, R10, _SOURCE, R1)
    program.load(WORD, R1, R10, _PACKET + 6)
    program.store(WORD, R10, _SOURCE + 4, R1)
    program.load(HALF, R1, R10, _PACKET + 10)
    program.store(HALF, R10, _SOURCE + 8, R1)
    program.store_constant(HALF, R10, _SOURCE + 10, 0)
    for offset in range(12, 28, 4):
        program.store_constant(WORD, R10, _SOURCE + offset, 0)


def _read_ipv4_source(program: Assembler) -> None:
    """Write a plain IPv4 packet's source to the key; go to the check."""
    program.load(BYTE, R1, R10, _IP_HEADER)
    program.jump_unequal(R1, _NO_OPTIONS, "pass")
    program.load(HALF, R1, R10, _IP_HEADER + 6)
    program.jump_any_bit(R1, numbers.FRAGMENT, "pass")
    program.load(WORD, R1, R10, _IP_HEADER + 12)
    program.store(WORD, R10, _SOURCE + 12, R1)
    program.load(BYTE, R1, R10, _IP_HEADER + 9)
    program.jump_unequal(R1, numbers.UDP, "checked")
    program.load(HALF, R1, R10, _IP_HEADER + 20)
    program.jump_equal(R1, numbers.DHCP_SERVER, "pass")
    program.load(HALF, R1, R10, _IP_HEADER + 22)
    program.jump_equal(R1, numbers.DHCP_CLIENT, "pass")
    program.jump("checked")


def _read_ipv6_source(program: Assembler) -> None:
    """Do the same for IPv6 TCP and UDP.

    ICMPv6 and extension headers go to the bridge.
    """
    for offset in range(0, 16, 4):
        program.load(WORD, R1, R10, _IP_HEADER + 8 + offset)
        program.store(WORD, R10, _SOURCE + 12 + offset, R1)
    program.load(BYTE, R1, R10, _IP_HEADER + 6)
    program.jump_equal(R1, numbers.TCP, "checked")
    program.jump_unequal(R1, numbers.UDP, "pass")
    _load_behind_ipv6(program, 4)
    program.load(HALF, R1, R10, _PORT)
    program.jump_equal(R1, numbers.DHCPV6_SERVER, "pass")
    program.load(HALF, R1, R10, _PORT + 2)
    program.jump_equal(R1, numbers.DHCPV6_CLIENT, "pass")


def _check_source(program: Assembler, sources_fd: int) -> None:
    program.load_map(R1, sources_fd)
    program.move(R2, R10)
    program.add(R2, _SOURCE)
    program.call(numbers.MAP_LOOKUP)
    program.jump_equal(R0, 0, "pass")


def _find_target(program: Assembler, targets_fd: int, segment: int) -> None:
    for offset in range(0, 6, 2):  # the frame is not aligned to words on the stack
        program.load(HALF, R1, R10, _PACKET + offset)
        program.store(HALF, R10, _TARGET + offset, R1)
    program.store_constant(HALF, R10, _TARGET + 6, segment)
    _look_up(program, targets_fd)


def _look_up(program: Assembler, targets_fd: int) -> None:
    program.load_map(R1, targets_fd)
    program.move(R2, R10)
    program.add(R2, _TARGET)
    program.call(numbers.MAP_LOOKUP)


def _send_elsewhere(program: Assembler, targets_fd: int, *, is_judged: bool) -> None:
    """Send frames for other hosts to the VTEP."""
    _find_vtep(program, targets_fd)
    if is_judged:
        program.set(R1, numbers.JUDGED)
        program.store(WORD, R6, numbers.MARK, R1)
    program.load(WORD, R1, R0, 0)
    program.set(R2, 0)
    program.call(numbers.REDIRECT)
    program.exit()


def _find_vtep(program: Assembler, targets_fd: int, label: str = "pass") -> None:
    """Look up the VTEP, the entry of the zero MAC, or go to a label; the segment is in the key."""
    program.store_constant(WORD, R10, _TARGET, 0)
    program.store_constant(HALF, R10, _TARGET + 4, 0)
    _look_up(program, targets_fd)
    program.jump_equal(R0, 0, label)


def _pass(program: Assembler) -> None:
    program.label("pass")
    program.set(R0, numbers.PASS)
    program.exit()
