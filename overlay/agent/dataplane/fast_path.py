"""Whether this agent's sandboxes have a fast path: as asked for, and as the kernel allows.

Owns: the choice between on, off and auto (on where the kernel can), and the reason for `status`.
"""

from __future__ import annotations

from overlay.errors import OverlayError
from overlay.kernel.bpf.fast_path import FastPath


class FastPathSupport:
    """Makes the fast path of each sandbox, or says why there is none."""

    def __init__(self, mode: str) -> None:
        self.mode = mode
        self.why = "" if mode != "off" else "switched off in the configuration"

    @property
    def is_active(self) -> bool:
        """Whether the last sandbox got one, or would."""
        return not self.why

    @property
    def is_wanted_but_missing(self) -> bool:
        """Whether it was asked for and can't be had."""
        return self.mode == "on" and bool(self.why)

    def make(self) -> FastPath | None:
        """Return a new sandbox's fast path; None where it is off or the kernel refuses."""
        if self.mode == "off":
            return None
        try:
            made = FastPath()
        except OverlayError as error:
            self.why = error.why or error.what
            return None
        self.why = ""
        return made
