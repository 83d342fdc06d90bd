"""Configure wireguard-go by its socket (wireguard.com/xplatform, "configuration protocol").

A request and its reply are lines of `key=value`, ended by an empty line; keys are in hexadecimal.

Owns: these texts, and the exchange. Does not: start the process (`process`).
"""

from __future__ import annotations

import errno
import ipaddress
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from overlay import limits
from overlay.core.encryption.device import DeviceChange, DeviceReading, PeerReading, TunnelPeer
from overlay.errors import OverlayError
from overlay.model import Ip, ip_text

SOCKETS: Final = Path("/var/run/wireguard")
SILENCE: Final = (TimeoutError, BlockingIOError, ConnectionError, FileNotFoundError)
"""The errors that mean that no process answers; others are of the asking one."""

_NOTHING: Final = "set=1\n\n"  # is answered without looking at peers, however many there are
_CHUNK: Final = 65_536


def socket_path(name: str) -> Path:
    """Return the socket of the process that has a device."""
    return SOCKETS / f"{name}.sock"


def is_served(name: str) -> bool:
    """Return whether a process has the socket of a device, which may be gone already."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as opened:
        opened.settimeout(limits.WIREGUARD_ANSWER_S)
        return opened.connect_ex(str(socket_path(name))) == 0


def is_hung(name: str) -> bool:
    """Return whether a process has the socket of a device, and does not answer in time."""
    try:
        ask(name)
    except (TimeoutError, BlockingIOError):  # BlockingIOError: too many requests wait already
        return True
    except (OSError, OverlayError):
        return False
    return False


def ask(name: str) -> None:
    """Have the process of a device answer. Raises OSError where none does in time."""
    _exchange(name, _NOTHING, limits.WIREGUARD_ANSWER_S)


def read(name: str) -> DeviceReading:
    """Return a device's configuration. Raises OSError where no process has it, or it is silent."""
    ask(name)
    return decode(_exchange(name, "get=1\n\n", limits.WIREGUARD_EXCHANGE_S))


def configure(name: str, change: DeviceChange) -> None:
    """Apply a change, all of it in one message. Raises OSError, OverlayError."""
    ask(name)
    _exchange(name, encode(change), limits.WIREGUARD_EXCHANGE_S)


def encode(change: DeviceChange) -> str:
    """Return the request for a change."""
    lines = ["set=1"]
    if change.private_key is not None:
        lines.append(f"private_key={change.private_key.hex()}")
    if change.port is not None:
        lines.append(f"listen_port={change.port}")
    for key in change.remove:
        lines += [f"public_key={key.hex()}", "remove=true"]
    for peer in change.put:
        lines += _peer_lines(peer)
    return "\n".join(lines) + "\n\n"


def _peer_lines(peer: TunnelPeer) -> list[str]:
    host = ip_text(peer.address)
    endpoint = f"{host}:{peer.port}" if len(peer.address) == 4 else f"[{host}]:{peer.port}"
    return [
        f"public_key={peer.public_key.hex()}",
        f"endpoint={endpoint}",
        "replace_allowed_ips=true",
        f"allowed_ip={ip_text(peer.inner)}/128",
    ]


def decode(text: str) -> DeviceReading:
    """Return the device in a reply to `get`."""
    head, *blocks = _blocks(text)
    peers = {}
    for block in blocks:
        fields = dict(block)
        ranges = tuple(_range(value) for key, value in block if key == "allowed_ip")
        seconds = int(fields.get("last_handshake_time_sec", "0"))
        nanoseconds = int(fields.get("last_handshake_time_nsec", "0"))
        peers[bytes.fromhex(fields["public_key"])] = PeerReading(
            ranges,
            seconds + nanoseconds / 1e9,
            int(fields.get("rx_bytes", "0")),
            int(fields.get("tx_bytes", "0")),
        )
    own = dict(head)
    private = bytes.fromhex(own.get("private_key", ""))
    return DeviceReading(private, int(own.get("listen_port", "0")), peers)


def _blocks(text: str) -> Iterator[list[tuple[str, str]]]:
    """Yield the lines of the device, then those of each peer."""
    block: list[tuple[str, str]] = []
    for line in text.splitlines():
        key, _, value = line.partition("=")
        if key == "public_key":
            yield block
            block = []
        if key:
            block.append((key, value))
    yield block


def _range(text: str) -> tuple[Ip, int]:
    found = ipaddress.ip_network(text)
    return Ip(found.network_address.packed), found.prefixlen


def _exchange(name: str, request: str, timeout_s: float) -> str:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as opened:
        opened.settimeout(timeout_s)
        try:
            opened.connect(str(socket_path(name)))
            opened.sendall(request.encode("ascii"))
            reply = _receive(opened)
        except TimeoutError as error:
            text = f"no answer within {timeout_s:.0f} s"
            raise TimeoutError(errno.ETIMEDOUT, text) from error
    number = dict(line.partition("=")[::2] for line in reply.splitlines()).get("errno", "0")
    if number != "0":
        raise _refusal(name, abs(int(number)))
    return reply


def _receive(opened: socket.socket) -> str:
    parts: list[bytes] = []
    while not (parts and b"".join(parts[-2:]).endswith(b"\n\n")):
        part = opened.recv(_CHUNK)
        if not part:
            raise ConnectionResetError(errno.ECONNRESET, "it ended before its answer")
        parts.append(part)
    return b"".join(parts).decode("ascii", "replace")


def _refusal(name: str, number: int) -> OverlayError:
    hint = "The agent retries; 'overlayd encryption status' shows the device"
    if number == errno.EADDRINUSE:
        hint = f"Another program has the UDP port of {name}: ss -ulpn; the agent retries"
    return OverlayError(
        f"wireguard-go refused the configuration of {name}", why=os.strerror(number), hint=hint
    )
