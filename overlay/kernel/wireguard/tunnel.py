"""Make a WireGuard device of this host what it should be, and take it away.

Owns: the order of the steps: the fence before the device, peers before their routes, and one packet
to each peer after every start, because a peer that only receives would otherwise wait for its own
next handshake. Does not: decide what should be (`agent.encryption`).
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Collection, Iterable
from typing import Final

from overlay import limits
from overlay.core.encryption.device import (
    DEVICES,
    DeviceReading,
    TunnelPeer,
    TunnelState,
    device_change,
)
from overlay.errors import ConflictError, OverlayError
from overlay.kernel.wireguard import backend, leftovers, link, uapi
from overlay.kernel.wireguard.backend import Backend
from overlay.model import Ip, ip_text

_DISCARD_PORT: Final = 9  # RFC 863


def establish(
    wanted: TunnelState, before: TunnelState | None, preferred: Backend, *, read: bool = True
) -> list[str]:
    """Make device, peers and routes what they should be, behind a fence; return what was wrong.

    `before` is what the last call made, None for the first. Without `read`, a device whose link is
    in order is taken to have what it was given: to read 1,000 peers takes 60 ms. Raises
    OverlayError, OSError. Runs in the kernel thread, whose namespace is the host's.
    """
    if not read and before == wanted and not link.link_faults(wanted):
        return []
    wrong: list[str] = []
    name = wanted.name
    there = link.find_device(name)
    created = there is None
    if there is None:
        wrong.append(f"{name} was gone")
        link.remove_devices(keep=DEVICES)  # its process has the socket of this name
        backend.create(preferred, name)
        there = link.find_device(name)
    used = None if there is None else backend.backend_of(there.kind)
    if there is None or used is None:
        raise _taken(name)
    found = _reading(used, name, is_own=created or there.alias == link.ALIAS)
    if there.alias != link.ALIAS and found.private_key not in (b"", bytes(32), wanted.private_key):
        raise _taken(name)
    change = device_change(wanted, found, None if created else before)
    if change:
        backend.configure(used, name, change)
        if before is not None and not created and device_change(before, found, before):
            wrong.append(f"{name} had another key, port or peer")
    wrong += [text for text in link.repair_link(wanted) if not created]
    _greet_new(used, wanted, [peer for peer in wanted.peers if peer.public_key not in found.peers])
    return wrong


def _greet_new(used: Backend, wanted: TunnelState, peers: list[TunnelPeer]) -> None:
    """Greet new peers until something was sent to each, for a moment at most.

    wireguard-go drops packets until it has noticed that its link is up.
    """
    deadline = time.monotonic() + limits.WIREGUARD_GREETING_S
    while peers:
        greet(wanted.name, (peer.inner for peer in peers))
        with contextlib.suppress(OSError):
            there = backend.read(used, wanted.name).peers
            sent = {key for key, peer in there.items() if peer.sent}
            peers = [peer for peer in peers if peer.public_key not in sent]
        if time.monotonic() > deadline:
            return
        if peers:
            time.sleep(limits.WIREGUARD_GREETING_PAUSE_S)


def _reading(used: Backend, name: str, *, is_own: bool) -> DeviceReading:
    """Read the device; one of overlayd's that no process answers for is deleted."""
    try:
        return backend.read(used, name)
    except uapi.SILENCE as error:
        if is_own:
            raise _give_up(used, name, error.strerror or str(error)) from error
        raise _taken(name) from error


def give_up_hung(name: str) -> None:
    """Kill the process that does not answer for a device of overlayd's, and delete the device.

    Raises OverlayError that says so. The caller has seen that it does not answer.
    """
    there = link.find_device(name)
    used = None if there is None else backend.backend_of(there.kind)
    if there is not None and used is not None and there.alias == link.ALIAS:
        raise _give_up(used, name, f"no answer within {limits.WIREGUARD_ANSWER_S:.0f} s")


def _give_up(used: Backend, name: str, why: str) -> OverlayError:
    """Remove a device and what runs it; return the error that says so."""
    ended = backend.end(used, name)
    link.remove_devices(keep=set(DEVICES) - {name})
    killed = f"; killed process {', '.join(map(str, ended))}" if ended else ""
    return OverlayError(
        f"{used.value} does not answer for {name}",
        why=f"{why}{killed}",
        hint="The agent has deleted the device, and makes it again",
    )


def _taken(name: str) -> ConflictError:
    return ConflictError(
        f"the interface {name} is not overlayd's",
        why="another program has made it",
        hint=f"Rename it, or remove it: ip link delete {name}",
    )


def greet(name: str, peers: Iterable[Ip]) -> None:
    """Send one empty datagram to each peer by this device: it begins a handshake."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as opened:
        opened.setblocking(False)
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, name.encode("ascii"))
        for ip in peers:
            with contextlib.suppress(OSError):
                opened.sendto(b"", (ip_text(ip), _DISCARD_PORT))


def read(name: str) -> DeviceReading | None:
    """Return a device's configuration and counters; None where there is no device.

    Raises OSError if nothing answers for it.
    """
    there = link.find_device(name)
    used = None if there is None else backend.backend_of(there.kind)
    if there is None or used is None or there.alias != link.ALIAS:
        return None
    return backend.read(used, name)


def differences(wanted: TunnelState, before: TunnelState | None) -> list[str]:
    """Return how fence, device and routes differ from what they should be; changes nothing."""
    texts = link.link_faults(wanted)
    if not link.has_fence(wanted.prefix):
        texts.append("the unreachable route of the inner addresses is gone")
    try:
        found = read(wanted.name)
        if found is not None and device_change(wanted, found, before):
            texts.append(f"{wanted.name} has another key, port or peer")
    except OSError as error:
        texts.append(f"nothing answers for {wanted.name}: {error.strerror or error}")
    return texts


def remove_surplus(wanted: Collection[str]) -> bool:
    """Delete overlayd's devices but for those wanted; return whether there was one."""
    return link.remove_devices(keep=wanted)


def remove(prefix: bytes) -> bool:
    """Delete the devices, the fence, and what ran them; return whether there was a device.

    Raises OverlayError if a process cannot be ended.
    """
    removed = link.remove_devices()
    link.remove_fences(prefix)
    leftovers.clear(DEVICES)
    return removed
