"""The kinds of underlay between two hosts: the default, large packets, and no offload.

A veth pair hands on what TCP sends in one piece of 64 KiB, as a network card with all offloads
does. Without segmentation by the sender's interface each packet crosses it on its own.
"""

from __future__ import annotations

import ctypes
import fcntl
import socket
import struct
from collections.abc import Sequence

from overlay.lab import host_process, lab, underlay
from overlay.lab.forged_frames import socket_in
from overlay.lab.host_process import HostProcess

DEFAULT, JUMBO, SEGMENTED, SEGMENTED_GRO = "default", "jumbo", "segmented", "segmented-gro"
KINDS = (DEFAULT, JUMBO, SEGMENTED, SEGMENTED_GRO)
_MTU = 9000
_SEGMENTATION, _GRO = 0x1F, 0x2C  # ETHTOOL_STSO, ETHTOOL_SGRO (linux/ethtool.h)
_SIOCETHTOOL = 0x8946


def mtu(kind: str) -> int:
    """Return the MTU of a kind in bytes."""
    return _MTU if kind == JUMBO else underlay.MTU


def prepare(hosts: Sequence[HostProcess], kind: str) -> None:
    """Set the MTU of the hosts' switch, before they join."""
    if kind != JUMBO:
        return
    (switch,) = (each for each in host_process.running() if each.name == lab.SWITCH)
    for host in hosts:
        _set_mtu(switch, underlay.port_to(host.name), _MTU)
        _set_mtu(host, underlay.INTERFACE, _MTU)


def apply(host: HostProcess, interface: str, kind: str) -> None:
    """Make one end of a cable an interface of that kind."""
    if kind == JUMBO:
        _set_mtu(host, interface, _MTU)
    if kind in {SEGMENTED, SEGMENTED_GRO}:
        set_offloads(host, interface, segments=False, merges=kind == SEGMENTED_GRO)


def set_offloads(host: HostProcess, interface: str, *, segments: bool, merges: bool) -> None:
    """Have an interface segment TCP or leave that to the kernel, and merge packets or not (GRO)."""
    _set_offload(host, interface, _SEGMENTATION, on=segments)
    _set_offload(host, interface, _GRO, on=merges)


def _set_mtu(host: HostProcess, interface: str, value: int) -> None:
    done = host_process.run(host, "ip", "link", "set", interface, "mtu", str(value))
    if done.returncode:
        raise RuntimeError(f"{host.name}: {done.stderr}")


def _set_offload(host: HostProcess, interface: str, command: int, *, on: bool) -> None:
    with socket_in(host, socket.AF_INET, socket.SOCK_DGRAM) as control:
        value = ctypes.create_string_buffer(struct.pack("=II", command, on))
        request = struct.pack("=16sQ16x", interface.encode(), ctypes.addressof(value))
        fcntl.ioctl(control, _SIOCETHTOOL, request)
