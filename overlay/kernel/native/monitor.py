"""Watch the hooks of the host's interfaces for changes by other programs."""

from __future__ import annotations

from typing import ClassVar

from overlay.kernel.netlink import codec
from overlay.kernel.sandbox.monitor import UnderlayMonitor


class HookMonitor(UnderlayMonitor):
    """Watches the queueing disciplines and filters of all interfaces of the host."""

    groups: ClassVar[tuple[int, ...]] = (codec.RTNLGRP_TC,)
