"""TCP streams between containers, and the offloads of their interfaces."""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import socket
import struct

from overlay.kernel import netns
from overlay.model import Ip, ip_text
from tests.kernel.conftest import World

_SET_CHECKSUMS, _SET_SEGMENTATION = 0x17, 0x1F  # ETHTOOL_STXCSUM, ETHTOOL_STSO
_SIOCETHTOOL = 0x8946
DATA = bytes(range(256)) * 16_384


def set_offload(world: World, namespace: str, *, on: bool) -> None:
    """Switch checksums and segmentation by eth0 on or off (linux/ethtool.h)."""
    with netns.inside(world.fd(namespace)):
        control = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with control:
        for command in (_SET_CHECKSUMS, _SET_SEGMENTATION):
            value = ctypes.create_string_buffer(struct.pack("=II", command, on))
            request = struct.pack("=16sQ16x", b"eth0", ctypes.addressof(value))
            fcntl.ioctl(control, _SIOCETHTOOL, request)


def stream(world: World, client: str, server: str, address: Ip) -> bytes:
    """Send `DATA` from a container to another one's address; return what has arrived."""
    family = socket.AF_INET if len(address) == 4 else socket.AF_INET6
    with netns.inside(world.fd(server)):
        listener = socket.create_server((ip_text(address), 7777), family=family)
    with listener:
        with netns.inside(world.fd(client)):
            sender = socket.create_connection((ip_text(address), 7777), timeout=20)
        receiver, _ = listener.accept()
    with sender, receiver:
        receiver.settimeout(20)
        sender.setblocking(False)
        arrived, rest = bytearray(), memoryview(DATA)
        while len(arrived) < len(DATA):
            with contextlib.suppress(BlockingIOError):
                rest = rest[sender.send(rest) :] if rest else rest
            arrived += receiver.recv(1 << 20)
    return bytes(arrived)
