"""The native path's programs on a lab host's underlay, looked at and removed as others may do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from overlay.kernel import netns
from overlay.kernel.bpf import syscall
from overlay.kernel.native import hooks
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.lab.driver import AgentDriver


@contextmanager
def _inside(driver: AgentDriver) -> Iterator[None]:
    fd = netns.open_fd(f"/proc/{driver.host.pid}/ns/net")
    with netns.closing(fd), netns.inside(fd):
        yield


def programs_of(driver: AgentDriver) -> list[str]:
    """Return the programs on a host's underlay."""
    with _inside(driver):
        (found,) = [index for index, name in socket.if_nameindex() if name == "eth1"]
        return [syscall.program_name(each) for each in syscall.attached(found)]


def remove_programs(driver: AgentDriver) -> None:
    """Remove all programs of the native path from a host."""
    with _inside(driver), NetlinkSocket() as inside:
        hooks.remove_all(inside)
