"""Configure the kernel's WireGuard by generic netlink (linux/wireguard.h, linux/genetlink.h).

Many peers travel in one message: each message costs a round trip through the kernel's locks.

Owns: the layout of these messages. Does not: make the device (`link`).
"""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final, Self

from overlay.core.encryption.device import DeviceChange, DeviceReading, PeerReading, TunnelPeer
from overlay.kernel.netlink.codec import NetlinkMessage, attribute, attributes
from overlay.kernel.netlink.socket import NetlinkError, NetlinkSocket
from overlay.model import Ip

_NETLINK_GENERIC: Final = 16  # linux/netlink.h
_HEADER: Final = struct.Struct("=BBH")  # struct genlmsghdr: command, version, reserved
HEADER_SIZE: Final = 4
# linux/genetlink.h
_CONTROLLER: Final = 16
_GET_FAMILY: Final = 3
_FAMILY_ID, _FAMILY_NAME = 1, 2
# linux/wireguard.h
_VERSION: Final = 1
_GET_DEVICE, _SET_DEVICE = 0, 1
_IFNAME, _PRIVATE_KEY, _LISTEN_PORT, _PEERS = 2, 3, 6, 8
_PEER_KEY, _PEER_FLAGS, _PEER_ENDPOINT, _PEER_HANDSHAKE = 1, 3, 4, 6
_PEER_RECEIVED, _PEER_SENT, _PEER_RANGES = 7, 8, 9
_REMOVE, _REPLACE_RANGES = 1, 2
_RANGE_FAMILY, _RANGE_IP, _RANGE_LENGTH = 1, 2, 3
_NESTED: Final = 0x8000
_PEERS_PER_MESSAGE: Final = 256  # of 140 bytes: an attribute holds 64 KiB
_U16, _U32, _U64 = struct.Struct("=H"), struct.Struct("=I"), struct.Struct("=Q")
_TIME: Final = struct.Struct("=qq")


class WireguardSocket:
    """A socket to the kernel's WireGuard, in the calling thread's namespace."""

    def __init__(self) -> None:
        """Raise OSError if the kernel has no WireGuard; its module is loaded if there is one."""
        self._socket = NetlinkSocket(protocol=_NETLINK_GENERIC)
        try:
            self._family = self._resolve()
        except BaseException:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_details: object) -> None:
        self._socket.close()

    def _resolve(self) -> int:
        body = _HEADER.pack(_GET_FAMILY, 1, 0) + attribute(_FAMILY_NAME, b"wireguard\0")
        for message in self._socket.get((_CONTROLLER, 0, body)):
            found = attributes(message.buffer, message.start + HEADER_SIZE, message.end)
            if _FAMILY_ID in found:
                return int(_U16.unpack(found[_FAMILY_ID])[0])
        raise NetlinkError(errno.ENOENT, "this kernel has no WireGuard")

    def read(self, name: str) -> DeviceReading:
        """Return a device's configuration. Raises OSError."""
        body = _HEADER.pack(_GET_DEVICE, _VERSION, 0) + attribute(_IFNAME, _text(name))
        return decode(self._socket.dump(self._family, body))

    def configure(self, name: str, change: DeviceChange) -> None:
        """Apply a change. Raises OSError."""
        for body in encode(name, change):
            self._socket.request((self._family, 0, body))


def encode(name: str, change: DeviceChange) -> Iterator[bytes]:
    """Yield the bodies of the messages for a change, headers of generic netlink included."""
    peers = [*map(_removal, change.remove), *map(_peer, change.put)]
    device = attribute(_IFNAME, _text(name))
    if change.private_key is not None:
        device += attribute(_PRIVATE_KEY, change.private_key)
    if change.port is not None:
        device += attribute(_LISTEN_PORT, _U16.pack(change.port))
    head = _HEADER.pack(_SET_DEVICE, _VERSION, 0)
    if not peers:
        yield head + device
    for at in range(0, len(peers), _PEERS_PER_MESSAGE):
        yield head + device + _list(_PEERS, peers[at : at + _PEERS_PER_MESSAGE])
        device = attribute(_IFNAME, _text(name))


def _text(name: str) -> bytes:
    return name.encode("ascii") + b"\0"


def _list(kind: int, items: Sequence[bytes]) -> bytes:
    return attribute(kind | _NESTED, b"".join(attribute(_NESTED, item) for item in items))


def _removal(key: bytes) -> bytes:
    return attribute(_PEER_KEY, key) + attribute(_PEER_FLAGS, _U32.pack(_REMOVE))


def _peer(peer: TunnelPeer) -> bytes:
    allowed = (
        attribute(_RANGE_FAMILY, _U16.pack(socket.AF_INET6))
        + attribute(_RANGE_IP, peer.inner)
        + attribute(_RANGE_LENGTH, b"\x80")
    )
    return (
        attribute(_PEER_KEY, peer.public_key)
        + attribute(_PEER_FLAGS, _U32.pack(_REPLACE_RANGES))
        + attribute(_PEER_ENDPOINT, _socket_address(peer.address, peer.port))
        + _list(_PEER_RANGES, [allowed])
    )


def _socket_address(ip: Ip, port: int) -> bytes:
    """Return a struct sockaddr_in or sockaddr_in6."""
    if len(ip) == 4:
        return _U16.pack(socket.AF_INET) + struct.pack(">H", port) + ip + bytes(8)
    return _U16.pack(socket.AF_INET6) + struct.pack(">HI", port, 0) + ip + bytes(4)


def decode(messages: Sequence[NetlinkMessage]) -> DeviceReading:
    """Return the device in the messages of a dump; a peer may be spread over several."""
    private, port = b"", 0
    peers: dict[bytes, PeerReading] = {}
    for message in messages:
        found = attributes(message.buffer, message.start + HEADER_SIZE, message.end)
        private = found.get(_PRIVATE_KEY, private)
        if _LISTEN_PORT in found:
            port = _U16.unpack(found[_LISTEN_PORT])[0]
        for raw in _items(found.get(_PEERS, b"")):
            fields = attributes(raw, 0, len(raw))
            ranges = tuple(map(_range, _items(fields.get(_PEER_RANGES, b""))))
            key = fields[_PEER_KEY]
            if key in peers:  # its ranges are continued
                earlier = peers[key]
                peers[key] = earlier._replace(inner=(*earlier.inner, *ranges))
                continue
            seconds, nanoseconds = _TIME.unpack(fields.get(_PEER_HANDSHAKE, bytes(16)))
            peers[key] = PeerReading(
                ranges,
                seconds + nanoseconds / 1e9,
                _U64.unpack(fields.get(_PEER_RECEIVED, bytes(8)))[0],
                _U64.unpack(fields.get(_PEER_SENT, bytes(8)))[0],
            )
    return DeviceReading(private, port, peers)


def _items(raw: bytes) -> Iterator[bytes]:
    """Yield the values of a list's elements, whatever their numbers."""
    at = 0
    while at + 4 <= len(raw):
        (length,) = _U16.unpack_from(raw, at)
        if length < 4:
            return
        yield raw[at + 4 : at + length]
        at += (length + 3) & ~3


def _range(raw: bytes) -> tuple[Ip, int]:
    fields = attributes(raw, 0, len(raw))
    return Ip(fields[_RANGE_IP]), fields[_RANGE_LENGTH][0]
