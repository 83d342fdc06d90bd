"""The native path's programs on a lab host's underlay, looked at and removed as others may do."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager

from overlay.kernel import netns
from overlay.kernel.bpf import syscall
from overlay.kernel.bpf.hooks import clsact
from overlay.kernel.bpf.hooks.owner import INGRESS
from overlay.kernel.bpf.hooks.tcx import has_tcx
from overlay.kernel.native import hooks
from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.lab.driver import AgentDriver


@contextmanager
def _inside(driver: AgentDriver) -> Iterator[None]:
    fd = netns.open_fd(f"/proc/{driver.host.pid}/ns/net")
    with netns.closing(fd), netns.inside(fd):
        yield


def programs_of(driver: AgentDriver) -> list[str]:
    """Return the names of those programs on a host's underlay, at the hooks that its kernel has."""
    with _inside(driver), NetlinkSocket() as inside:
        index = socket.if_nametoindex("eth1")
        if not has_tcx():
            return [found.name for found in clsact.filters_of(inside, index, INGRESS)]
        names = map(syscall.program_name, syscall.attached(index))
        return [name for name in names if name.startswith("ovn_")]  # a gate has others


def remove_programs(driver: AgentDriver) -> None:
    """Remove all programs of the native path from a host."""
    with _inside(driver), NetlinkSocket() as inside:
        hooks.remove_all(inside)
