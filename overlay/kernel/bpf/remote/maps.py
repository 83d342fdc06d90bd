"""The maps of the native path's sending half: where remote containers are, and how to get there.

Owns: the layout of keys and values, and reading and writing rows as entries. IPv4 addresses are
written as in RFC 4291 section 2.5.5.2.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Final, NamedTuple

from overlay import limits
from overlay.core.dataplane.state import RemoteRow
from overlay.kernel.bpf import syscall
from overlay.kernel.bpf.numbers import ETHERNET_SIZE
from overlay.model import Ip, Mac, Vni

REMOTE_KEY: Final = struct.Struct("=6sH")  # destination MAC, segment
ADDRESS_SIZE: Final = 16
# VNI as in a packet, this host's VTEP, UDP port as in a packet, size of the largest frame; the tick
# in which the program last saw that the VTEP is an address of this host.
WIRE_VALUE: Final = struct.Struct("=4s16s2sHQ")
WIRE_VNI, WIRE_LOCAL, WIRE_PORT, WIRE_FRAME, WIRE_CHECKED = 0, 4, 20, 22, 24
_MAPPED: Final = bytes(10) + b"\xff\xff"
_KEY: Final = struct.Struct("=I")
_INDEX: Final = struct.Struct("=I")


class RemoteFds(NamedTuple):
    """Descriptors of the maps, for programs."""

    remotes: int
    wires: int
    exits: int  # by segment, the sandbox's end of the shortcut; the kernel removes a deleted one


class Wire(NamedTuple):
    """How a segment's frames are sent past the VXLAN device: as by that device."""

    shortcut: int  # index of the sandbox's end
    vni: Vni
    local: Ip
    port: int
    mtu: int


class RemoteMaps:
    """The maps of one sandbox; they live as long as this object or a program with them."""

    def __init__(self) -> None:
        """Raise OSError if the kernel has no room for them."""
        with ExitStack() as undo:

            def make(key: int, value: int, entries_max: int, name: str, kind: int) -> int:
                descriptor = syscall.create_map(key, value, entries_max, name, kind)
                undo.callback(os.close, descriptor)
                return descriptor

            each, remotes = limits.SUBNET_COUNT_MAX, limits.REMOTE_ENTRIES_MAX
            self.fds = RemoteFds(
                make(REMOTE_KEY.size, ADDRESS_SIZE, remotes, "overlayd_remote", syscall.HASH),
                make(_KEY.size, WIRE_VALUE.size, each, "overlayd_wire", syscall.ARRAY),
                make(_KEY.size, _INDEX.size, each, "overlayd_exit", syscall.INTERFACES),
            )
            undo.pop_all()

    def close(self) -> None:
        """Close the descriptors."""
        for descriptor in self.fds:
            os.close(descriptor)

    def put(self, row: RemoteRow) -> None:
        """Write an entry. Raises OSError (E2BIG if the map is full)."""
        syscall.update(self.fds.remotes, REMOTE_KEY.pack(row.mac, row.segment), mapped(row.vtep))

    def delete(self, row: RemoteRow) -> None:
        """Delete an entry. Raises OSError."""
        syscall.delete(self.fds.remotes, REMOTE_KEY.pack(row.mac, row.segment))

    def rows(self) -> Iterator[RemoteRow]:
        """Yield the entries."""
        for key, value in syscall.entries(self.fds.remotes, REMOTE_KEY.size, ADDRESS_SIZE):
            mac, segment = REMOTE_KEY.unpack(key)
            yield RemoteRow(Mac(mac), segment, unmapped(value))

    def connect(self, segment: int, wire: Wire) -> None:
        """Have a segment's ports send to remote containers. Raises OSError.

        Runs in the sandbox's namespace, where the kernel finds the shortcut.
        """
        vni, port = (int(wire.vni) << 8).to_bytes(4, "big"), wire.port.to_bytes(2, "big")
        value = WIRE_VALUE.pack(vni, mapped(wire.local), port, wire.mtu + ETHERNET_SIZE, 0)
        syscall.update(self.fds.wires, _KEY.pack(segment), value)
        syscall.update(self.fds.exits, _KEY.pack(segment), _INDEX.pack(wire.shortcut))

    def is_connected(self, segment: int) -> bool:
        """Return whether a segment's ports send to remote containers."""
        found = dict(syscall.entries_singly(self.fds.exits, _KEY.size, _INDEX.size))
        return _KEY.pack(segment) in found

    def disconnect(self, segment: int) -> None:
        """Have a segment's ports leave all to the VXLAN device. Raises OSError."""
        syscall.delete(self.fds.exits, _KEY.pack(segment))


def mapped(ip: Ip) -> bytes:
    """Return an address as keys and values have it."""
    return bytes(ip) if len(ip) == 16 else _MAPPED + ip


def unmapped(raw: bytes) -> Ip:
    """Return the address in a key or value."""
    return Ip(raw.removeprefix(_MAPPED))
