"""The support of the kernel and of an interface for the native path."""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from functools import cache
from socket import if_nameindex
from typing import Final

from overlay.kernel.bpf import numbers, syscall
from overlay.kernel.bpf.assembler import R2, R3, R4, Assembler
from overlay.kernel.netlink import codec, link_decoder
from overlay.kernel.netlink.socket import NetlinkSocket

_ETHERNET: Final = 1  # ARPHRD_ETHER, linux/if_arp.h
_TYPE: Final = struct.Struct("=BxH")  # family, hardware type
_DECAPSULATE_IPV6: Final = 1 << 0 | 1 << 8  # BPF_F_ADJ_ROOM_FIXED_GSO and _DECAP_L3_IPV6
_SAMPLE: Final = (  # an Ethernet header, and an IPv4 one with enough behind it
    bytes(12) + b"\x08\x00\x45\x00\x00\x64" + bytes(5) + b"\x11" + bytes(10) + bytes(100)
)


@cache
def can_mix_versions() -> bool:
    """Return whether the IP versions inside and outside may differ (since Linux 6.3).

    Raises OSError if the kernel runs no programs.
    """
    program = Assembler()
    program.set(R2, -20)
    program.set(R3, 1)
    program.set(R4, _DECAPSULATE_IPV6)
    program.call(numbers.ADJUST_ROOM)
    program.exit()
    descriptor = syscall.load(program.code(), "overlayd_probe")
    try:
        return syscall.run(descriptor, _SAMPLE) == 0
    finally:
        os.close(descriptor)


def existing_interfaces(indexes: Iterable[int]) -> frozenset[int]:
    """Return those of the interfaces that there are, in the thread's namespace."""
    return frozenset(indexes) & {index for index, _ in if_nameindex()}


def usable_interfaces(indexes: Iterable[int]) -> dict[int, str]:
    """Return why each interface can't run the program; empty where it can.

    Those that do not exist are left out.
    """
    wanted = frozenset(indexes)
    found: dict[int, str] = {}
    with NetlinkSocket() as socket:
        for message in socket.dump(codec.RTM_GETLINK, link_decoder.DUMP_BODY):
            link = link_decoder.decode(message)
            if link.index in wanted:
                _, hardware = _TYPE.unpack_from(message.buffer, message.start)
                is_usable = hardware == _ETHERNET and link.name != "lo"
                found[link.index] = "" if is_usable else f"{link.name} is no Ethernet interface"
    return found
