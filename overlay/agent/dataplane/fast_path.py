"""Decide whether this node's sandboxes have a fast path, by configuration and kernel.

Its programs also apply policies, so they exist where it is off as well: then they redirect nothing.

Owns: the choice between on, off and auto (on where the kernel allows it), and the reason that
`status` shows.
"""

from __future__ import annotations

from collections.abc import Iterator

from overlay.agent.process.controller import Fault
from overlay.errors import OverlayError
from overlay.kernel.bpf.fast_path import FastPath


class FastPathSupport:
    """Creates the fast path of each sandbox; `why` is the reason where there is none."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.why = "" if mode != "off" else "switched off in the configuration"
        self.refusal = ""  # of the kernel, when the last sandbox's programs were made

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
        return created

    def faults(self) -> Iterator[Fault]:
        """Yield that there is none where it should be."""
        if self.is_wanted_but_missing:
            yield Fault(
                f"no fast path: {self.why}",
                'Frames go through the bridge. fast_path = "auto" uses it only where the kernel '
                "allows it",
            )
