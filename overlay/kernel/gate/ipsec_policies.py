"""The IPsec policies of the thread's namespace (RFC 4301; linux/xfrm.h).

Those of single sockets, as of a daemon that negotiates keys, are not among them.
"""

from __future__ import annotations

import errno
from typing import ClassVar, Final

from overlay.kernel.netlink.socket import NetlinkSocket
from overlay.kernel.sandbox.monitor import UnderlayMonitor

_NETLINK_XFRM: Final = 6  # linux/netlink.h
_GET_POLICY: Final = 0x15  # XFRM_MSG_GETPOLICY
_GROUP_POLICY: Final = 4  # XFRMNLGRP_POLICY
_UNSUPPORTED: Final = frozenset({errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT})


def has_ipsec_policies() -> bool:
    """Return whether there are any; a kernel without IPsec has none. Raises OSError."""
    try:
        with NetlinkSocket(protocol=_NETLINK_XFRM) as policies:
            return bool(policies.dump(_GET_POLICY, b""))
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise


class PolicyMonitor(UnderlayMonitor):
    """Watches them for changes."""

    groups: ClassVar[tuple[int, ...]] = (_GROUP_POLICY,)
    protocol: ClassVar[int] = _NETLINK_XFRM


def policy_monitor() -> PolicyMonitor | None:
    """Return a monitor; None if the kernel has no IPsec. Raises OSError."""
    try:
        return PolicyMonitor()
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return None
        raise
