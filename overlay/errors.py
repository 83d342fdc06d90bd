"""Errors by blame; each says what happened, why, and what to do next.

`OverlayError` and its subclasses are faults of the caller or the environment, and shown to
people. `RemoteError` is a peer's fault: the datagram is dropped and counted by reason, never
reported as a failure. A broken invariant of this program is an `assert`.
"""

from __future__ import annotations

import errno
import os

TYPE_CHECKING = False  # typing itself takes longer to import than all of this
if TYPE_CHECKING:
    from typing import ClassVar, Final


KERNEL_REFUSED_HINT: Final = (
    "Repeat it. If the kernel refuses again, its log may say why: journalctl -k -n 50"
)


SHORTAGE_HINT: Final = (
    "The host is short of file descriptors or memory: `ulimit -n` and `free` show it. The agent's "
    "own limit is in /proc/PID/limits"
)
_SHORTAGES: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS})
_CAUSES_MAX: Final = 8  # of one error that are looked at


def shortage_hint(error: BaseException | None) -> str:
    """Return what to do if an error, or one that caused it, is a shortage; else an empty text.

    It goes before the hint of the operation that failed: a shortage ends any of them.
    """
    for _ in range(_CAUSES_MAX):
        if error is None:
            break
        if isinstance(error, OSError) and error.errno in _SHORTAGES:
            return SHORTAGE_HINT
        error = error.__cause__
    return ""


def is_of_shortage(text: str) -> bool:
    """Return whether a text, as of an event, has the words of a shortage."""
    return any(os.strerror(number) in text for number in _SHORTAGES)


class OverlayError(Exception):
    """An error for people: what happened, why, what to do next.

    `field`: the API's name of the invalid field of the request, or empty.
    """

    exit_code: ClassVar[int] = 1
    http_status: ClassVar[int] = 500
    code: ClassVar[str] = "failed"

    def __init__(self, what: str, *, why: str = "", hint: str = "", field: str = "") -> None:
        self.what = what
        self.why = why
        self.hint = hint
        self.field = field
        super().__init__(what)

    def body(self) -> dict[str, str]:
        """Return the error as the API and `--json` write it."""
        return {
            "code": self.code,
            "what": self.what,
            "why": self.why,
            "hint": self.hint,
            "field": self.field,
        }

    def report(self, of: str = "") -> str:
        """Return the error for a terminal: what happened (to what), why, what to do next."""
        lines = [f"error: {of}: {self.what}" if of else f"error: {self.what}"]
        parts = (("why:   ", self.why), ("next:  ", self.hint))
        lines += [f"  {head}{_indented(text)}" for head, text in parts if text]
        return "\n".join(lines)

    def __str__(self) -> str:
        text = self.what if not self.why else f"{self.what}: {self.why}"
        return text if not self.hint else f"{text}. {self.hint}"


def defect_error(name: str, error: BaseException) -> OverlayError:
    """Return what is told of a defect that ended an operation."""
    return OverlayError(
        f"{name} failed because of a defect in overlayd",
        why=f"{type(error).__name__}: {error}",
        hint="The agent's log has the details; please report it",
    )


def _indented(text: str) -> str:
    return text.replace("\n", "\n         ")


class UsageError(OverlayError):
    """The request is malformed."""

    exit_code = 2
    http_status = 400
    code = "usage"


class ConfigurationError(UsageError):
    """The configuration file is invalid: the error names its keys, not options."""


class AgentNotRunningError(OverlayError):
    """No agent answers on this host's API socket."""

    exit_code = 3
    http_status = 503
    code = "agent-not-running"


class DegradedError(OverlayError):
    """The operation succeeded only in part."""

    exit_code = 4
    http_status = 503
    code = "degraded"


class NotFoundError(OverlayError):
    """The named thing does not exist."""

    exit_code = 5
    http_status = 404
    code = "not-found"


class ConflictError(OverlayError):
    """The request contradicts what exists."""

    exit_code = 6
    http_status = 409
    code = "conflict"


class NotRunningError(ConflictError):
    """The container exists, and does not run."""


class TimedOutError(OverlayError):
    """The bounded wait for something ended without it."""

    exit_code = 7
    http_status = 504
    code = "timed-out"


class ForbiddenError(OverlayError):
    """The caller may not do this."""

    exit_code = 1
    http_status = 403
    code = "forbidden"


ERROR_BY_CODE: dict[str, type[OverlayError]] = {
    kind.code: kind
    for kind in (
        OverlayError,
        UsageError,
        AgentNotRunningError,
        DegradedError,
        NotFoundError,
        ConflictError,
        TimedOutError,
        ForbiddenError,
    )
}


class RemoteError(Exception):
    """A peer sent something invalid; `reason` names the drop counter."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(reason)
