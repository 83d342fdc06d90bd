"""Watch the host's interfaces, and their hooks, for changes by other programs."""

from __future__ import annotations

from typing import ClassVar, Final

from overlay.core.dataplane.link_state import Shortcut
from overlay.kernel.bpf import tc_filters
from overlay.kernel.netlink import codec, link_decoder
from overlay.kernel.netlink.link_decoder import LinkInfo
from overlay.kernel.netlink.socket import LostNotificationsError
from overlay.kernel.sandbox.monitor import NOTIFICATIONS_LOST, UnderlayMonitor
from overlay.kernel.shortcut import pair

_READS_MAX: Final = 256  # of a drain; if more wait, the descriptor stays readable
_UNHOOKED: Final = (codec.RTM_DELQDISC, codec.RTM_DELTFILTER)


class HookMonitor(UnderlayMonitor):
    """Watches all interfaces of the host, with their queueing disciplines and filters.

    `are_hooks_changed` says whether something was noted of the latter; links change all the time.
    """

    groups: ClassVar[tuple[int, ...]] = (codec.RTNLGRP_TC, codec.RTNLGRP_LINK)

    def __init__(self) -> None:
        super().__init__()
        self.forget()

    def drain(self) -> None:
        """Note what waiting notifications say; only the last one about each interface counts."""
        try:
            waiting = self._socket.notifications(_READS_MAX)
        except LostNotificationsError:
            self._are_lost = self.are_hooks_changed = True
            return
        for message in waiting:
            if message.kind in _UNHOOKED:
                self._unhooked.add(tc_filters.index_of(message))
            if message.kind == codec.RTM_NEWLINK:
                link = link_decoder.decode(message)
                self._links[link.index] = link
            elif message.kind != codec.RTM_DELLINK:
                self.are_hooks_changed = True

    def forget(self) -> None:
        """Forget what was noted."""
        self.are_hooks_changed = False
        self._unhooked: set[int] = set()
        self._links: dict[int, LinkInfo] = {}
        self._are_lost = False

    def alteration(self, shortcut: Shortcut, end: int) -> str:
        """Return how the host's end of a shortcut, by index, may be altered; empty if it is not."""
        if self._are_lost:
            return NOTIFICATIONS_LOST
        if end in self._unhooked:
            return f"the hook at the host's end of {shortcut.name} is gone"
        there = self._links.get(end)
        altered = () if there is None else pair.checked(shortcut, there).altered
        return f"{shortcut.name}: {', '.join(altered)} changed" if altered else ""
