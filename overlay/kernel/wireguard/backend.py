"""Choose what carries encrypted networks on this host, and configure a device by it.

The kernel's WireGuard where there is one, else wireguard-go.
"""

from __future__ import annotations

import enum
from pathlib import Path
from typing import Final, NamedTuple

from overlay.core.encryption.device import DeviceChange, DeviceReading
from overlay.kernel.netlink import link_requests
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.wireguard import leftovers, process, uapi
from overlay.kernel.wireguard.netlink_device import WireguardSocket

_IPV6: Final = Path("/proc/sys/net/ipv6")


class Backend(enum.Enum):
    """An implementation of WireGuard."""

    KERNEL = "kernel"
    PROCESS = "wireguard-go"


class Support(NamedTuple):
    """This host's support; `why` says what is missing if there is none."""

    backend: Backend | None
    why: str = ""
    hint: str = ""


_INSTALL: Final = "apt install wireguard-go; or load the kernel's module: modprobe wireguard"


def find_support(only: Backend | None = None) -> Support:
    """Return what can carry encrypted networks on this host; `only` one of the two may, if given.

    A device that exists keeps what it was made by until it is made again.
    """
    if not _IPV6.is_dir():
        return Support(
            None,
            "the kernel has no IPv6, which is used inside the tunnels",
            "Boot without ipv6.disable=1; addresses of the host's interfaces need not change",
        )
    if only is not Backend.PROCESS:
        try:
            with WireguardSocket():
                return Support(Backend.KERNEL)
        except OSError:
            pass
    if only is Backend.KERNEL:
        return Support(
            None,
            'the kernel has no WireGuard, and the configuration has wireguard = "kernel"',
            'modprobe wireguard; or set wireguard = "auto", and restart the agent',
        )
    if process.program() is None:
        return Support(None, "the kernel has no WireGuard, and wireguard-go is missing", _INSTALL)
    if not process.TUN.exists():
        return Support(
            None,
            "the kernel has no WireGuard, and wireguard-go needs /dev/net/tun",
            "Load the kernel's module: modprobe wireguard; or modprobe tun",
        )
    return Support(Backend.PROCESS)


def backend_of(kind: str) -> Backend | None:
    """Return what made a link of this kind; None for one that is no WireGuard device."""
    return {"wireguard": Backend.KERNEL, "tun": Backend.PROCESS}.get(kind)


def create(backend: Backend, name: str) -> None:
    """Make a device, without configuration and down. Raises OverlayError, OSError."""
    if backend is Backend.PROCESS:
        process.start(name)
        return
    with NetlinkSocket() as socket:
        socket.request(link_requests.create_device(name, "wireguard"))


def read(backend: Backend, name: str) -> DeviceReading:
    """Return a device's configuration. Raises OSError if nothing answers for it."""
    if backend is Backend.PROCESS:
        return uapi.read(name)
    with WireguardSocket() as opened:
        return opened.read(name)


def end(backend: Backend, name: str) -> list[int]:
    """Kill what runs a device, if anything does; return the processes. Raises OverlayError."""
    return leftovers.end(name) if backend is Backend.PROCESS else []


def configure(backend: Backend, name: str, change: DeviceChange) -> None:
    """Apply a change. Raises OverlayError, OSError."""
    if backend is Backend.PROCESS:
        uapi.configure(name, change)
        return
    with WireguardSocket() as opened:
        opened.configure(name, change)
