"""Decide whether this node's sandboxes have a fast path, by configuration and kernel.

Its programs also apply policies, so they exist where it is off as well: then they redirect nothing.

Owns: the choice between on, off and auto (on where the kernel allows it), and the reason that
`status` shows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from overlay.agent.process.controller import Fault
from overlay.errors import OverlayError
from overlay.kernel.bpf.fast_path import FastPath
from overlay.kernel.bpf.hooks.interface_hooks import stops_interfaces
from overlay.kernel.native.receiver import refusal

_SWITCHED_OFF: Final = "switched off in the configuration"
_WITHOUT: Final = "there is no fast path: {}"
_STOPS_INTERFACES: Final = (
    "before Linux 6.6 the underlay's interface drops packets for some milliseconds when programs "
    'come and go; native_path = "on" accepts that'
)


class FastPathSupport:
    """Creates the fast path of each sandbox; `why` is the reason where there is none.

    `judging` is the reason that the host's own firewall gives not to use the native path.
    """

    def __init__(self, mode: str, native_mode: str = "off") -> None:
        self.mode = mode
        self.native_mode = native_mode
        self.why = "" if mode != "off" else _SWITCHED_OFF
        self._native_refusal = "" if native_mode != "off" else _SWITCHED_OFF
        if self.why and not self._native_refusal:
            self._native_refusal = _WITHOUT.format(self.why)
        self.judging = ""
        self.refusal = ""  # of the kernel, when the last sandbox's programs were made
        self._accepts_native = False  # the kernel did, once

    @property
    def is_active(self) -> bool:
        """Return whether the last sandbox has a fast path, or would have one."""
        return not self.why

    @property
    def is_wanted_but_missing(self) -> bool:
        """Return whether it is configured, but not available."""
        return self.mode == "on" and bool(self.why)

    @property
    def redirects(self) -> bool:
        """Return whether frames go past the bridge where there are programs."""
        return self.mode != "off"

    @property
    def native_why(self) -> str:
        """Return why frames of other hosts take the VXLAN device; empty if they do not."""
        return self._native_refusal or self.judging

    @property
    def loads_native(self) -> bool:
        """Return whether the native path's programs are wanted, and load as far as known."""
        return not self._native_refusal

    @property
    def is_native(self) -> bool:
        """Return whether frames of other hosts go past the VXLAN device, as far as known."""
        return not self.native_why

    def make(self) -> FastPath | None:
        """Return a new sandbox's programs; None where the kernel refuses them."""
        created = None
        self.refusal = ""
        try:
            created = FastPath()
        except OverlayError as error:
            self.refusal = error.why or error.what
        if self.redirects:
            self.why = self.refusal
        if self.native_mode != "off":
            without = _WITHOUT.format(self.why) if self.why else ""
            self._native_refusal = without or self._refusal_of_native()
        return created

    def _refusal_of_native(self) -> str:
        """Return why the kernel does not accept the native path's programs; asked until it does."""
        found = "" if self._accepts_native else refusal()
        self._accepts_native = not found
        if self.native_mode == "auto" and not found and stops_interfaces():
            return _STOPS_INTERFACES
        return found

    def faults(self) -> Iterator[Fault]:
        """Yield that there is none where it should be."""
        if self.is_wanted_but_missing:
            yield Fault(
                f"no fast path: {self.why}",
                'Frames go through the bridge. fast_path = "auto" uses it only where the kernel '
                "allows it",
            )
        if self.native_mode == "on" and self.native_why:
            yield Fault(
                f"no native path: {self.native_why}",
                'Frames of other hosts take the VXLAN device. native_path = "auto" uses the '
                "native path only where the kernel allows it",
            )
