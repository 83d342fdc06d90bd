"""Decide whether this node's sandboxes have a fast path, by configuration and kernel.

Owns: the choice between on, off and auto (on where the kernel allows it), and the reason that
`status` shows.
"""

from __future__ import annotations

from overlay.errors import OverlayError
from overlay.kernel.bpf.fast_path import FastPath


class FastPathSupport:
    """Creates the fast path of each sandbox; `why` is the reason where there is none."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.why = "" if mode != "off" else "switched off in the configuration"

    @property
    def is_active(self) -> bool:
        """Return whether the last sandbox has a fast path, or would have one."""
        return not self.why

    @property
    def is_wanted_but_missing(self) -> bool:
        """Return whether it is configured, but not available."""
        return self.mode == "on" and bool(self.why)

    def make(self) -> FastPath | None:
        """Return a new sandbox's fast path; None where it is off or the kernel refuses it."""
        if self.mode == "off":
            return None
        try:
            created = FastPath()
        except OverlayError as error:
            self.why = error.why or error.what
            return None
        self.why = ""
        return created
