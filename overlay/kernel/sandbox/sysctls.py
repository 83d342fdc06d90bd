"""Set the kernel parameters of a sandbox.

They are documented in Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from overlay import failpoint
from overlay.kernel import netns

# Set before any device exists, so that each is created with them.
_SYSCTLS: Final = (
    # Ports and VTEPs send no MLD reports. A bridge gets IPv6 along with an IPv6 address.
    ("net/ipv6/conf/default/disable_ipv6", "1"),
    ("net/ipv6/conf/default/addr_gen_mode", "1"),  # none: no fe80::, no router solicitations
    ("net/ipv6/conf/default/accept_ra", "0"),
    ("net/ipv6/conf/default/accept_dad", "0"),
    ("net/ipv4/conf/default/rp_filter", "0"),  # replies arrive through another host's gateway
    ("net/ipv4/conf/all/rp_filter", "0"),
    ("net/ipv4/ip_forward", "1"),  # a network's subnets are routed here
    ("net/ipv6/conf/all/forwarding", "1"),
    ("net/ipv4/conf/all/send_redirects", "0"),
    ("net/ipv4/conf/default/send_redirects", "0"),
    # If Docker has loaded br_netfilter, bridged frames would pass through iptables' hooks too.
    ("net/bridge/bridge-nf-call-iptables", "0"),
    ("net/bridge/bridge-nf-call-ip6tables", "0"),
    ("net/bridge/bridge-nf-call-arptables", "0"),
)


def prepare(netns_fd: int) -> None:
    """Set what holds for all interfaces of a sandbox."""
    _write(netns_fd, _SYSCTLS)


def enable_ipv6(netns_fd: int, link: str) -> None:
    """Enable IPv6 on one interface."""
    _write(netns_fd, [(f"net/ipv6/conf/{link}/disable_ipv6", "0")])


def _write(netns_fd: int, settings: Sequence[tuple[str, str]]) -> None:
    failpoint.failpoint("sandbox.sysctl")
    with netns.inside(netns_fd):
        for path, value in settings:
            with suppress(OSError):  # a kernel without IPv6 has no such file
                Path("/proc/sys", path).write_text(value, encoding="ascii")
